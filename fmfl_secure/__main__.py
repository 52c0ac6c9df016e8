"""The command's entry point, and what `python -m fmfl_secure` runs."""

import signal


def main() -> None:
    """Run the command line. Ctrl-C while it is being loaded ends it as it ends any program."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from fmfl_secure.cli import main as run  # noqa: PLC0415 - what takes the time

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()

"""`python -m fmfl_secure`: the command, where its script is not on the path."""

from fmfl_secure.cli import main

if __name__ == "__main__":
    main()

"""Take the pictures of the documentation from real runs: `python tools/docs/screenshots.py`.

Two private runs of the demonstration's clinics, with few notes, give the run's report and a site's
dataset report; `demo aggregation` gives its page; processes of all parties on this machine, in a
run that one site refused, give the live page. Chromium takes the pictures, in light colours.
What pages show differs from run to run, so that no test compares these with the committed ones.

    python tools/docs/screenshots.py --only demonstration --only live
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Error, sync_playwright

from fmfl_secure import Federation
from fmfl_secure.demonstration import demonstrate
from fmfl_secure.demonstration.federation import prepare_demo
from fmfl_secure.demonstration.page import write_page
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.provisioning.provision import provision
from fmfl_secure.report.dataset import open_source, read_reports, record_of, write_dataset
from fmfl_secure.transports.https.ports import free_port

IMAGES = Path(__file__).parents[2] / "docs" / "images"
NOTES, HOLDOUT = 200, 100
# Two runs of half the budget each: a dataset report with one run would have little to say.
EDITS = {"rounds = 8": "rounds = 4", "epsilon = 8.0": "epsilon = 3.0"}
WIDTH = 980  # CSS pixels
MOST = 300_000  # bytes of a picture
SITE = "north-clinic"
SITES = (SITE, "east-clinic", "south-clinic", "west-clinic")
REFUSING = "west-clinic"
WAIT_S = 300


def small_federation(folder: Path) -> Path:
    """The demonstration's clinics, with fewer notes and rounds."""
    settings = prepare_demo(folder, fresh=True, notes_per_site=NOTES, holdout=HOLDOUT)
    text = settings.read_text(encoding="utf-8")
    for before, after in EDITS.items():
        if before not in text:
            raise SystemExit(f"the demonstration's settings have no {before!r} any more")
        text = text.replace(before, after)
    settings.write_text(text, encoding="utf-8")
    return settings


def runs(folder: Path) -> list[Path]:
    """Two runs; their folders."""
    settings = small_federation(folder)
    found = []
    for number in (1, 2):
        place = folder / f"run-{number}"
        Federation(settings).run(place)
        found.append(place)
    return found


def take(page: Any, name: str, height: int) -> None:
    """The top of a page as docs/images/NAME.png, small enough for a README."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    picture = Image.open(io.BytesIO(page.screenshot()))
    # A page has few colours; a palette of them is a fraction of the size.
    # An octree keeps the few words in red and green, which the usual cut at the median greys.
    smaller = picture.convert("RGB").quantize(
        256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
    )
    out = io.BytesIO()
    smaller.save(out, "PNG", optimize=True)
    if len(out.getvalue()) > MOST:
        raise SystemExit(f"{name}.png has {len(out.getvalue()):,} bytes, expected below {MOST:,}")
    (IMAGES / f"{name}.png").write_bytes(out.getvalue())
    sys.stdout.write(f"docs/images/{name}.png, {len(out.getvalue()):,} bytes\n")


def demonstration(page: Any, folder: Path) -> None:
    """The page of `demo aggregation`."""
    page.goto(write_page(demonstrate(), folder / "demonstration").as_uri())
    take(page, "demonstration", 1420)


def reports(page: Any, folder: Path) -> None:
    """A run's report, and a site's dataset report."""
    places = runs(folder / "clinics")
    page.goto((places[-1] / "report.html").as_uri())
    take(page, "report", 1100)
    record = record_of(
        open_source(str(folder / "clinics" / "sites" / SITE)), reports=read_reports(places)
    )
    page.goto(write_dataset(record, folder / "dataset").as_uri())
    take(page, "dataset-report", 1420)


def live(page: Any, folder: Path) -> None:
    """The coordinator's live page half-way through a run of processes, which one site refused."""
    settings = small_federation(folder / "live")
    kits, port = folder / "kits", free_port()
    provision(settings, kits, url=f"https://localhost:{port}")
    service = kits / "server" / "service.toml"
    operations = free_port()
    service.write_text(
        f'[listen]\naddress = "127.0.0.1"\nport = {port}\n[operations]\nport = {operations}\n'
    )
    shutil.copytree(settings.parent / "data", kits / "server" / "data", dirs_exist_ok=True)
    for name in SITES:
        (kits / name / "data").mkdir(exist_ok=True)
        shutil.copy(settings.parent / "data" / f"{name}.csv", kits / name / "data" / "train.csv")
    for name in ("decryptor", *SITES):
        file = kits / name / "service.toml"
        file.write_text(file.read_text().replace("port = 9444", "port = 0"))
    policy = kits / REFUSING / "site.toml"
    policy.write_text(policy.read_text().replace("[policy]", "[policy]\nmax_rounds = 2", 1))
    with ExitStack() as processes:
        start(processes, "serve", kits / "server", "--output", folder / "live-run")
        start(processes, "decryptor", kits / "decryptor", "--once")
        for name in SITES:
            start(processes, "join", kits / name, "--once")
        open_page(page, f"http://localhost:{operations}/", Kit(kits / "server").operations_token())
        page.get_by_text("2 of 4").wait_for(timeout=WAIT_S * 1000)
        take(page, "live", 700)


def start(processes: ExitStack, *command: object) -> None:
    """Run a command of the package until the pictures are taken."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(  # noqa: S603 - our own command and paths
        [sys.executable, "-m", "fmfl_secure", *map(str, command)], env=environment
    )
    processes.callback(process.wait)
    processes.callback(process.terminate)


def open_page(page: Any, url: str, token: str) -> None:
    """Sign in to a live page, once its process answers."""
    for _ in range(WAIT_S):
        try:
            page.goto(url)
            break
        except Error:
            time.sleep(1)
    page.fill("#token", token)
    page.keyboard.press("Enter")
    page.wait_for_url(url)


PICTURES: dict[str, Callable[[Any, Path], None]] = {
    "demonstration": demonstration,
    "live": live,
    "reports": reports,
}


def main(arguments: list[str]) -> None:
    """Take all pictures, or some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PICTURES, help="may be repeated")
    chosen = parser.parse_args(arguments).only or list(PICTURES)
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise SystemExit("no Chromium on this machine to take pictures with")
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name in chosen:
            context = opened.new_context(device_scale_factor=1.5, color_scheme="light")
            PICTURES[name](context.new_page(), Path(place) / name)
            context.close()
        opened.close()


if __name__ == "__main__":
    main(sys.argv[1:])

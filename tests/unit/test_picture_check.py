"""What `check` says of a site's pictures, and the sheet that it writes for the site alone."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_written import save_to_disk
from dicom_written import dicom
from pictures_written import encode, png
from PIL import Image
from support import make_federation

from fmfl_secure import cli
from fmfl_secure.api import Federation
from fmfl_secure.data import check_pictures
from fmfl_secure.data.errors import OutputError
from fmfl_secure.data.images import read_image_folder


def ramp(low: int, high: int, dtype, shape=(10, 20)) -> np.ndarray:
    return np.rint(np.linspace(low, high, shape[0] * shape[1])).reshape(shape).astype(dtype)


def folder_of(folder: Path) -> Path:
    """Three 12 bits in 16, one of colour that is turned, one black, and a .DS_Store."""
    for label in ("clear", "dark"):
        (folder / label).mkdir(parents=True)
    for number in range(3):
        (folder / "clear" / f"{number}.png").write_bytes(png(ramp(0, 4095, np.uint16)))
    exif = Image.Exif()
    exif[0x0112] = 6
    colour = Image.fromarray(np.stack([ramp(9, 250, np.uint8)] * 3, axis=-1))
    (folder / "dark" / "a.png").write_bytes(encode(colour, exif=exif))
    (folder / "dark" / "b.png").write_bytes(png(np.zeros((5, 5), np.uint8)))
    (folder / "dark" / ".DS_Store").write_bytes(b"\0\0\0\x01Bud1")
    return folder


def read(folder: Path):
    return read_image_folder(folder, labels=["clear", "dark"], unit="record", on_bad_row="skip")


def test_kinds_sizes_and_ranges_are_counted(tmp_path: Path) -> None:
    found = check_pictures(read(folder_of(tmp_path)))
    assert str(found).splitlines() == [
        "3 of PNG, I;16: values 0 to 4095",
        "1 of PNG, RGB: values 9 to 250",
        "1 of PNG, L: values 0 to 0; 1 are of one colour once they are read",
        "pixels: 3 of 20 x 10, 1 of 10 x 20, 1 of 5 x 5",
        "Passed over as no rows: 1 times .DS_Store, which macOS leaves in folders",
    ]
    assert "4095" not in repr(found) + repr(found.kinds)


def test_the_sheet_shows_pictures_as_they_are_read_and_only_its_owner_reads_it(
    tmp_path: Path,
) -> None:
    records = read(folder_of(tmp_path / "data"))
    place = tmp_path / "sheet.png"
    place.write_bytes(b"older")
    place.chmod(0o644)
    mask = os.umask(0)
    try:
        check_pictures(records).write_contact_sheet(place)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    sheet = np.asarray(Image.open(place)).astype(int)
    assert sheet.shape == (112 + 14, 5 * 112, 3)
    assert sheet[2:12, 2:22].max() <= 16, "12 bits in 16 are as dark as a model is given them"
    assert (sheet[2:22, 3 * 112 + 2 : 3 * 112 + 12] < 255).all(), "turned upright"
    assert [name.name for name in tmp_path.iterdir() if name.name.startswith(".sheet")] == []


def test_of_many_pictures_some_are_shown_evenly(tmp_path: Path) -> None:
    (tmp_path / "data" / "clear").mkdir(parents=True)
    for number in range(10):
        shade = np.full((4, 4), 25 * number, np.uint8)
        (tmp_path / "data" / "clear" / f"{number}.png").write_bytes(png(shade))
    check_pictures(read(tmp_path / "data")).write_contact_sheet(tmp_path / "s.png", most=5)
    sheet = np.asarray(Image.open(tmp_path / "s.png"))
    assert [int(sheet[3, place * 112 + 3, 0]) for place in range(5)] == [0, 50, 100, 150, 200]


def test_a_sheet_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    found = check_pictures(read(folder_of(tmp_path / "data")))
    with pytest.raises(OutputError, match="cannot be written"):
        found.write_contact_sheet(tmp_path / "nowhere" / "sheet.png")


TASK = """[task]
kind = "image-classification"
labels = ["clear", "dark"]
"""


def federation_of_pictures(folder: Path, model: Path, data: Path | None = None, unit="") -> Path:
    """A federation whose first site has pictures."""
    file = make_federation(folder, model, plain=True, adapter='kind = "head"')
    text = file.read_text()
    start = text.index("[task]")
    end = text.index("\n[", start)
    file.write_text(text[:start] + TASK + unit + text[end:])
    data = data or folder_of(folder / "pictures")
    site = folder / "sites" / "site-1" / "site.toml"
    lines = [
        f'path = "{data}"' if line.startswith("path") else line
        for line in site.read_text().splitlines()
    ]
    site.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs `fmfl-secure check` for the first site; what it printed, and its exit status."""

    def run(file: Path, sheet: Path) -> tuple[str, int]:
        given = ["check", str(file), "site-1", "--contact-sheet", str(sheet)]
        monkeypatch.setattr(sys, "argv", ["fmfl-secure", *given])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        told = capsys.readouterr()
        return told.out + told.err, code

    return run


def test_check_tells_of_pictures_and_writes_the_sheet_where_it_says(
    tiny_models, tmp_path: Path, check
) -> None:
    file = federation_of_pictures(tmp_path, tiny_models("vit"))
    sheet = tmp_path / "sheet.png"
    out, code = check(file, sheet)
    assert code == 0, out
    assert "pictures: 3 of PNG, I;16: values 0 to 4095" in out
    assert "sheet.png" in out
    assert sheet.exists()
    found = Federation(tmp_path).check_pictures("site-1")
    assert found is not None
    assert len(found.pictures) == 5


def test_a_task_without_pictures_has_no_sheet(tiny_model: Path, tmp_path: Path, check) -> None:
    file = make_federation(tmp_path, tiny_model)
    assert Federation(tmp_path).check_pictures("site-1") is None
    out, code = check(file, tmp_path / "s.png")
    assert code != 0
    assert "the task has none" in out


COLOURS = np.random.default_rng(3).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
LABELS = ["clear", "dark", "clear", "dark"]


def as_npz(folder: Path) -> Path:
    np.savez(
        folder / "x.npz", train_image=COLOURS, train_label=np.array(LABELS), test_image=COLOURS
    )
    return folder / "x.npz" / "train"


def as_table() -> pa.Table:
    cells = [{"bytes": png(one), "path": None} for one in COLOURS]
    features = {"label": {"_type": "ClassLabel", "names": ["clear", "dark"]}}
    return pa.table(
        {
            "image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": [0, 1, 0, 1],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def as_parquet(folder: Path) -> Path:
    pq.write_table(as_table(), folder / "x.parquet")
    return folder / "x.parquet"


def as_dataset(folder: Path) -> Path:
    return save_to_disk(folder / "set", as_table())


def as_dicom(folder: Path) -> Path:
    for number, label in enumerate(LABELS):
        place = folder / "dicom" / label
        place.mkdir(parents=True, exist_ok=True)
        pixels = COLOURS[number, ..., 0].astype(np.uint16)
        (place / f"{number}.dcm").write_bytes(dicom(pixels, patient=f"P{number // 2}"))
    return folder / "dicom"


@pytest.mark.parametrize(
    ("made", "unit", "people"),
    [
        (as_npz, "", 0),
        (as_parquet, "", 0),
        (as_dataset, "", 0),
        (as_dicom, 'unit = "PatientID"\n', 2),
    ],
    ids=["NPZ", "Parquet", "datasets", "DICOM"],
)
def test_a_site_s_pictures_may_lie_in_any_of_these(
    tiny_models, tmp_path: Path, made, unit: str, people: int
) -> None:
    """From the settings to the records: what a run checks before it, and what it reads."""
    federation_of_pictures(tmp_path, tiny_models("vit"), made(tmp_path), unit)
    pilot = Federation(tmp_path)
    assert pilot.check("site-1").records == 4
    found = pilot.check_pictures("site-1")
    assert found is not None
    assert found.sizes == (((8, 8), 4),)
    assert pilot.check_units("site-1").ids == people

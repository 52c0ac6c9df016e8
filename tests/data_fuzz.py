"""Spoiled files of every form into the readers and decoders: a crash, or a typed refusal?

Run by `tests/property/test_data_fuzz.py` in a process of its own, whose end and whose peak of
memory count. By hand:

    python tests/data_fuzz.py 100000 1
"""

from __future__ import annotations

import faulthandler
import gzip
import io
import json
import random
import resource
import sys
import tempfile
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dicom_written import dicom, smooth
from pictures_written import encode, png, png_chunk, tiff
from PIL import Image
from pydicom.uid import RLELossless

from fmfl_secure.data import (
    DataError,
    check_header,
    check_units,
    image_field,
    label_field,
    read_records,
    read_table,
    tags_field,
    text_field,
    words_field,
)
from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.images import read_picture
from fmfl_secure.data.pictures.dicom import person_of

HANGS_AFTER_S = 120
INTERESTING = [0, 1, 2, 4, 7, 8, 16, 32, 64, 100, 127, 128, 255]
WIDE = [0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 20, 1 << 33]


def colours() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (9, 11, 3), dtype=np.uint8)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def parquet(table: pa.Table, **options) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def table() -> pa.Table:
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    held = [{"bytes": encode(Image.fromarray(colours())), "path": "a.png"}, None] * 4
    return pa.table(
        {
            "text": ["fever", "pain", None, "x" * 50] * 2,
            "label": pa.array([0, 1, 1, 0] * 2),
            "unit": pa.array(["P1", "p1", "P2", None] * 2).dictionary_encode(),
            "tokens": pa.array([["a", "b"], ["c"]] * 4),
            "tags": pa.array([[0, 1], [0]] * 4),
            "image": pa.array(held, picture),
            "size": pa.array([1.5, float("nan")] * 4),
        }
    ).replace_schema_metadata(
        {
            "huggingface": json.dumps(
                {"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
            )
        }
    )


def npz() -> bytes:
    sink = io.BytesIO()
    np.savez_compressed(
        sink,
        train_images=np.stack([colours()] * 4),
        train_labels=np.array([[0], [1], [0], [1]], np.uint8),
        text=np.array(["fever", "pain", "", "x"]),
        label=np.array(["a", "b", "a", "b"]),
    )
    return sink.getvalue()


CSV = (
    'text,label,unit\nfever,a,P1\n"pain, ""and"" more\nof it",b,007\n"",a,nan\nüber,b,7.0\n'
    "none,b,P-7\n"
).encode()
JSONL = b"".join(
    json.dumps(row).encode() + b"\n"
    for row in (
        {"text": "fever", "label": "a", "unit": 7, "tokens": ["a"], "tags": ["O"]},
        {"text": ["x"], "label": None, "unit": 7.5, "tokens": [], "tags": [1]},
        {"text": "\u2028 pain \ud83d\ude00", "label": True, "unit": {"a": 1}},
    )
)
TABLES = {
    "x.csv": CSV,
    "x.tsv": CSV.replace(b",", b"\t"),
    "x.jsonl": JSONL,
    "x.json": b"[" + JSONL.strip().replace(b"\n", b",") + b"]",
    "x.conll": b"-DOCSTART- O\n\nAnna NNP B-NAME\nLee NNP I-NAME\n\nfell O\n",
    "x.bio": b"Anna\tB-NAME\n\nfell\tO\n",
    "x.iob": b"Anna I-NAME\nfell O\n",
    "x.parquet": parquet(table()),
    "plain.parquet": parquet(table(), use_dictionary=False, compression="gzip"),
    "v2.parquet": parquet(table(), data_page_version="2.0", compression="zstd"),
    "x.csv.gz": gzip.compress(CSV),
    "x.npz": npz(),
}
DEEP = (colours().astype(np.uint16) << 8) + 77
PICTURES = {
    "png": encode(Image.fromarray(colours())),
    "palette": encode(Image.fromarray(colours()).quantize(7), transparency=2),
    "deep grey": png(DEEP[..., 0], absent=(77,)),
    "deep colour": png(DEEP),
    "deep with opacity": png(np.concatenate([DEEP, DEEP[..., :1]], axis=2)),
    "interlaced": png(colours(), interlaced=True),
    "jpeg": encode(Image.fromarray(colours()), "JPEG", exif=turned()),
    "webp": encode(Image.fromarray(colours()), "WEBP"),
    "bmp": encode(Image.fromarray(colours()), "BMP"),
    "gif": encode(Image.fromarray(colours()).quantize(9), "GIF"),
    "tiff": encode(Image.fromarray(colours()), "TIFF", compression="tiff_lzw"),
    "deep tiff": tiff(DEEP),
    "packed tiff": tiff(DEEP, compressed=True),
    "floats": tiff(DEEP[..., 0].astype(np.float32)),
    "dicom": dicom(smooth(0, 4095, np.uint16), bits=12, RescaleSlope=1, RescaleIntercept=-1024,
                   WindowCenter=40, WindowWidth=400),
    "run lengths": dicom(smooth(0, 255, np.uint16), syntax=RLELossless, compress=True),
    "dicom in colour": dicom(colours()[:8, :8].copy(), kind="RGB"),
}  # fmt: skip


def mutate(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """A few changes to a file: of bytes, of numbers, of parts, with parts of another."""
    held = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 3, 8])):
        at = draw.randrange(len(held) + 1)
        match draw.randrange(8):
            case 0 if held:
                held[at % len(held)] ^= 1 << draw.randrange(8)
            case 1 if held:
                held[at % len(held)] = draw.choice(INTERESTING)
            case 2:
                size = draw.choice([2, 4, 8])
                number = draw.choice(WIDE) % (1 << 8 * size)
                held[at : at + size] = number.to_bytes(size, draw.choice(["little", "big"]))
            case 3:
                del held[at : at + draw.randrange(1, 64)]
            case 4:
                del held[at:]
            case 5:
                held[at:at] = draw.randbytes(draw.randrange(1, 16))
            case 6:
                start = draw.randrange(len(other) + 1)
                held[at:at] = other[start : start + draw.randrange(1, 200)]
            case 7:
                part = held[at : at + draw.randrange(1, 64)]
                held[at:at] = part * draw.choice([1, 2, 50])
    return bytes(held)


def inside(draw: random.Random, name: str, data: bytes, other: bytes) -> bytes:
    """The same within what checks sums, so that the change is not refused for its sum alone."""
    if name.endswith(".gz"):
        return gzip.compress(mutate(draw, gzip.decompress(data), other))
    if name.endswith(".npz"):
        sink = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as held, zipfile.ZipFile(sink, "w") as made:
            members = held.namelist()
            chosen = draw.choice(members)
            for member in members:
                content = held.read(member)
                made.writestr(member, mutate(draw, content, other) if member == chosen else content)
        return sink.getvalue()
    if data.startswith(b"\x89PNG"):
        at, chunks = 8, []
        while at < len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
            at += 12 + length
        chosen = draw.randrange(len(chunks))
        parts = []
        for number, (kind, body) in enumerate(chunks):
            if number == chosen:
                spoiled = (
                    zlib.compress(mutate(draw, zlib.decompress(body), other))
                    if kind == b"IDAT" and draw.random() < 0.5
                    else mutate(draw, body, other)
                )
                parts.append(png_chunk(kind, spoiled))
            else:
                parts.append(png_chunk(kind, body))
        return data[:8] + b"".join(parts)
    return mutate(draw, data, other)


def try_table(place: Path, draw: random.Random) -> None:
    """All ways into a table; the first refusal ends it."""
    asked = draw.choice(
        [
            [text_field("t", ("text",)), label_field("l", "label", ("a", "b"))],
            [image_field("i", "image", place.parent, draw.choice([None, (0.0, 1.0)]))],
            [words_field("w", "tokens"), tags_field("g", "tags", ("O", "B-x"), ("O", "B-x"))],
            [
                image_field("i", "train_images", place.parent),
                label_field("l", "train_labels", ("0", "1")),
            ],
        ]
    )
    outcomes: list[Callable[[], object]] = [
        lambda: check_header(place, asked),
        lambda: read_records(place, asked, on_bad_row=draw.choice(["error", "skip"])),
        lambda: read_table(place),
        lambda: check_units(place, "unit"),
    ]
    draw.shuffle(outcomes)
    refusal = None
    for act in outcomes:
        try:
            act()
        except DataError as error:
            refusal = error
    if refusal is not None:
        raise refusal


def save_to_disk(folder: Path) -> dict[str, bytes]:
    held = table()
    with pa.ipc.new_stream(folder / "data.arrow", held.schema) as writer:
        writer.write_table(held)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def one(draw: random.Random, folder: Path, disk: dict[str, bytes]) -> str:
    """One spoiled input; what it was of, and how it ended."""
    seeds = [*TABLES.values(), *PICTURES.values()]
    other = draw.choice(seeds)
    spoil = draw.choice([lambda _name, data: mutate(draw, data, other),
                         lambda name, data: inside(draw, name, data, other)])  # fmt: skip
    sort = draw.randrange(8)
    try:
        if sort < 3:
            name = draw.choice(list(TABLES))
            (folder / name).write_bytes(spoil(name, TABLES[name]))
            split = name.endswith(".npz") and draw.random() < 0.2
            try_table(folder / name / "train" if split else folder / name, draw)
        elif sort == 3:
            name = "folder"
            chosen = draw.choice(list(disk))
            for file, content in disk.items():
                spoiled = mutate(draw, content, other) if file == chosen else content
                (folder / "disk" / file).write_bytes(spoiled)
            try_table(folder / "disk", draw)
        else:
            name = draw.choice(list(PICTURES))
            spoiled = spoil(name, PICTURES[name])
            if name == "dicom" and draw.random() < 0.2:
                person_of(spoiled)
            read_picture(spoiled, draw.choice([None, None, (0.0, 4095.0)]))
    except (DataError, UnusableValue):
        return f"{name}: refused"
    return f"{name}: read"


def main(count: int, seed: int) -> int:
    """So many inputs; prints how each form's ended, and the memory that was added at the peak."""
    faulthandler.enable()
    warnings.simplefilter("error")
    outcomes: Counter[str] = Counter()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "disk").mkdir()
        disk = save_to_disk(folder / "disk")
        for pictures in PICTURES.values():
            read_picture(pictures, (0.0, 1.0))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(count):
            draw = random.Random(f"{seed}/{number}")
            faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
            try:
                outcomes[one(draw, folder, disk)] += 1
            except Exception:  # noqa: BLE001 - whatever is no typed refusal is what is looked for
                failed += 1
                if failed <= 5:
                    sys.stdout.write(f"input {number} of seed {seed}:\n{traceback.format_exc()}\n")
        faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    told = {"failed": failed, "peak_mib": peak >> 10, "outcomes": outcomes}
    sys.stdout.write(json.dumps(told) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))

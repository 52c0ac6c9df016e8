"""Pictures that lie in a table itself: Parquet and folders of Hugging Face's datasets, and NPZ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_written import save_to_disk
from pictures_written import encode
from PIL import Image

from fmfl_secure.data import (
    decode_image,
    image_field,
    label_field,
    read_records,
    read_table,
    text_field,
)
from fmfl_secure.data.errors import (
    DataEncodingError,
    DataError,
    MalformedRowError,
    UnknownLabelError,
    UnreadableFileError,
    UnusableImageError,
)
from fmfl_secure.data.formats.dataset_folder import DatasetFolder
from fmfl_secure.data.headers import check_header

NAMES = ["normal", "pneumonia"]
PIXELS = np.random.default_rng(20260302).integers(0, 256, (4, 9, 7, 3), dtype=np.uint8)
FILES = [encode(Image.fromarray(values)) for values in PIXELS]
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": NAMES, "_type": "ClassLabel"},
}


def fields(path: Path, labels=tuple(NAMES), image="image", label="label", window=None):
    return (
        image_field("image_column", image, path.parent, window),
        label_field("label_column", label, labels),
    )


def read(path: Path, **options):
    asked = fields(path, **options)
    check_header(path, asked)
    return read_records(path, asked)


def pixels(records) -> np.ndarray:
    return np.stack([np.asarray(decode_image(bytes(one))) for one in records.columns[0]])


def as_structs(named: bool = True) -> pa.Table:
    cells = [{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(FILES)]
    table = pa.table({"image": pa.array(cells, PICTURE), "label": pa.array([0, 1, 0, 1])})
    features = json.dumps({"info": {"features": FEATURES}}).encode()
    return table.replace_schema_metadata({b"huggingface": features} if named else None)


def as_bytes() -> pa.Table:
    return pa.table({"image": pa.array(FILES, pa.binary()), "label": ["normal", "pneumonia"] * 2})


def as_large_bytes() -> pa.Table:
    return pa.table(
        {"image": pa.array(FILES, pa.large_binary()), "label": ["normal", "pneumonia"] * 2}
    )


@pytest.mark.parametrize("made", [as_structs, as_bytes, as_large_bytes])
def test_pictures_in_parquet_are_the_files_that_they_hold(tmp_path: Path, made) -> None:
    pq.write_table(made(), tmp_path / "x.parquet")
    records = read(tmp_path / "x.parquet")
    assert np.array_equal(pixels(records), PIXELS)
    assert records.columns[1] == NAMES * 2
    assert {one.facts.form for one in records.columns[0]} == {"PNG"}


def test_a_path_in_a_struct_is_read_from_the_table_s_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILES[0])
    cells = [{"bytes": None, "path": "a.png"}, {"bytes": FILES[1], "path": None}]
    table = pa.table({"image": pa.array(cells, PICTURE), "label": NAMES})
    pq.write_table(table, tmp_path / "x.parquet")
    assert np.array_equal(pixels(read(tmp_path / "x.parquet")), PIXELS[:2])


@pytest.mark.parametrize(
    "cell",
    [
        None,
        {"bytes": None, "path": None},
        {"bytes": b"", "path": None},
        {"bytes": b"no", "path": ""},
    ],
    ids=["null", "neither", "empty", "no picture"],
)
def test_a_cell_without_a_picture_is_a_bad_row(tmp_path: Path, cell) -> None:
    cells = [cell, {"bytes": FILES[1], "path": None}]
    pq.write_table(
        pa.table({"image": pa.array(cells, PICTURE), "label": NAMES}), tmp_path / "x.parquet"
    )
    with pytest.raises(UnusableImageError, match="row 1"):
        read(tmp_path / "x.parquet")


@pytest.mark.parametrize("made", [as_structs, as_bytes])
def test_pictures_are_no_texts_and_no_labels(tmp_path: Path, made) -> None:
    pq.write_table(made(), tmp_path / "x.parquet")
    for field in (text_field("t", ("image",)), label_field("l", "image", NAMES)):
        with pytest.raises(DataError):
            read_records(tmp_path / "x.parquet", [field])
    if made is as_structs:
        with pytest.raises(
            MalformedRowError, match="column 'image' holds pictures; expected texts or bytes"
        ):
            check_header(tmp_path / "x.parquet", [text_field("t", ("image",))])


@pytest.mark.parametrize("kind", [pa.int64(), pa.int8()])
def test_a_class_label_is_the_name_that_the_schema_gives_it(tmp_path: Path, kind) -> None:
    table = as_structs().set_column(1, "label", pa.array([0, 1, 1, 0], kind))
    pq.write_table(table, tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet").columns[1] == ["normal", "pneumonia", "pneumonia", "normal"]
    by_number = read(tmp_path / "x.parquet", labels=("0", "1"))
    assert by_number.columns[1] == ["0", "1", "1", "0"]


def test_a_number_that_is_a_label_and_names_another_is_refused(tmp_path: Path) -> None:
    features = {"label": {"names": ["1", "0"], "_type": "ClassLabel"}}
    table = pa.table({"text": ["a", "b"], "label": [0, 1]}).replace_schema_metadata(
        {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(UnknownLabelError, match="which is another"):
        read_records(tmp_path / "x.parquet", [label_field("l", "label", ("0", "1"))])


@pytest.mark.parametrize("named", [True, False], ids=["in the files", "beside them"])
def test_a_folder_of_datasets_is_read_with_pyarrow_alone(tmp_path: Path, named: bool) -> None:
    folder = save_to_disk(tmp_path / "train", as_structs(named), FEATURES)
    records = read(folder)
    assert np.array_equal(pixels(records), PIXELS)
    assert records.columns[1] == NAMES * 2


def test_of_a_folder_of_splits_one_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "xray"
    folder.mkdir()
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    save_to_disk(folder / "train", as_structs(), FEATURES)
    with pytest.raises(UnreadableFileError, match="the splits 'train', 'test'") as caught:
        check_header(folder, fields(folder))
    assert "xray/train" in caught.value.hint
    assert len(read(folder / "train")) == 4


def _other(folder: Path) -> None:
    (folder / "state.json").write_text("[1]")


def _outside(folder: Path) -> None:
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../x.arrow"}]}))


def _no_files(folder: Path) -> None:
    (folder / "state.json").write_text(json.dumps({"_data_files": []}))


def _selection(folder: Path) -> None:
    state = json.loads((folder / "state.json").read_text())
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (folder / "state.json").write_text(json.dumps(state))


def _cache(folder: Path) -> None:
    (folder / "state.json").unlink()


def _missing(folder: Path) -> None:
    (folder / "data-00000-of-00002.arrow").unlink()


def _no_arrow(folder: Path) -> None:
    (folder / "data-00000-of-00002.arrow").write_bytes(b"no arrow at all")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_other, "no JSON object"),
        (_outside, "names no Arrow files of the folder"),
        (_no_files, "names no Arrow files of the folder"),
        (_selection, "selection of rows"),
        (_cache, "cache of the datasets library"),
        (_missing, "not readable as a stream of Arrow"),
        (_no_arrow, "not readable as a stream of Arrow"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_before_a_record_is_read(
    tmp_path: Path, spoil, expected: str
) -> None:
    folder = save_to_disk(tmp_path / "train", as_structs(), FEATURES)
    spoil(folder)
    for ask in (check_header, read_records):
        with pytest.raises(UnreadableFileError, match=expected):
            ask(folder, fields(folder))


def test_an_arrow_file_that_points_out_of_its_memory_is_refused(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array(["abc", "defg"]), "label": NAMES})
    folder = save_to_disk(tmp_path / "train", table)
    file = folder / "data-00000-of-00002.arrow"
    data = file.read_bytes()
    offsets = np.array([0, 3], np.int32).tobytes()
    assert offsets in data
    file.write_bytes(data.replace(offsets, np.array([0, 1 << 30], np.int32).tobytes(), 1))
    with pytest.raises(UnreadableFileError, match="not readable as a stream of Arrow"):
        DatasetFolder().read(folder)


def medmnist(path: Path, images: np.ndarray = PIXELS, **arrays) -> Path:
    """As MedMNIST's files are: uint8 pictures, uint8 labels of shape (n, 1), by split."""
    labels = np.array([[0], [1], [0], [1]], np.uint8)
    held = {
        "train_images": images,
        "train_labels": labels[: len(images)],
        "test_images": images[:1],
        "test_labels": labels[:1],
    }
    np.savez_compressed(path, **{**held, **arrays})
    return path


ALIASES = [("0", "normal"), ("1", "pneumonia")]


@pytest.mark.parametrize("images", [PIXELS, PIXELS[..., 0]], ids=["colour", "grey"])
def test_a_split_of_medmnist_is_named_behind_the_file(tmp_path: Path, images: np.ndarray) -> None:
    path = medmnist(tmp_path / "x.npz", images)
    asked = (
        image_field("image_column", "images", tmp_path),
        label_field("label_column", "labels", NAMES, ALIASES),
    )
    for split, count in (("train", 4), ("test", 1)):
        check_header(path / split, asked)
        records = read_records(path / split, asked)
        expected = images[:count] if images.ndim == 4 else np.stack([images[:count]] * 3, axis=-1)
        assert np.array_equal(pixels(records), expected)
        assert records.columns[1] == (NAMES * 2)[:count]


def test_arrays_by_their_own_names_are_columns_too(tmp_path: Path) -> None:
    path = medmnist(tmp_path / "x.npz")
    records = read(path, image="train_images", label="train_labels", labels=("0", "1"))
    assert len(records) == 4
    with pytest.raises(MalformedRowError, match="not equally long"):
        read_records(path, fields(path, ("0", "1"), "train_images", "test_labels"))
    with pytest.raises(DataError, match="no column 'images'"):
        check_header(path, fields(path, ("0", "1"), "images", "labels"))
    with pytest.raises(UnreadableFileError, match=r"no array of x\.npz begins with 'dev_'"):
        check_header(path / "dev", fields(path, ("0", "1"), "images", "labels"))


def test_numbers_of_other_types_are_scaled_by_their_range_or_a_window(tmp_path: Path) -> None:
    deep = PIXELS.astype(np.uint16) * 257
    records = read(medmnist(tmp_path / "a.npz", deep) / "train", image="images", label="labels",
                   labels=("0", "1"))  # fmt: skip
    assert np.array_equal(pixels(records), PIXELS)
    floats = medmnist(tmp_path / "b.npz", PIXELS.astype(np.float32) / 255)
    options = {"image": "images", "label": "labels", "labels": ("0", "1")}
    with pytest.raises(UnusableImageError, match="does not say what is black and white"):
        read(floats / "train", **options)
    assert np.array_equal(pixels(read(floats / "train", **options, window=(0.0, 1.0))), PIXELS)


def test_volumes_and_lists_of_labels_are_no_pictures_and_no_labels(tmp_path: Path) -> None:
    path = medmnist(tmp_path / "x.npz", np.zeros((4, 8, 8, 8), np.uint8))
    with pytest.raises(MalformedRowError, match="holds arrays that are neither numbers, lists nor"):
        check_header(path / "train", fields(path, ("0", "1"), "images", "labels"))
    path = medmnist(tmp_path / "y.npz", train_labels=np.zeros((4, 14), np.uint8))
    with pytest.raises(MalformedRowError, match="column 'labels' holds lists of numbers; expected"):
        check_header(path / "train", fields(path, ("0", "1"), "images", "labels"))


class _Trap:
    """What runs where a pickle is opened."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("/tmp/a-pickle-was-opened"),))


def test_an_array_of_objects_is_never_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=PIXELS, labels=np.array([_Trap()] * 4, dtype=object))
    for ask in (check_header, read_records):
        with pytest.raises(UnreadableFileError, match="is of objects"):
            ask(tmp_path / "x.npz", fields(tmp_path, ("0", "1"), "images", "labels"))
    assert not Path("/tmp/a-pickle-was-opened").exists()


@pytest.mark.parametrize("point", [0x110000, 0xD800, 0xFFFFFFFF])
def test_a_number_that_is_no_character_costs_its_own_row(tmp_path: Path, point: int) -> None:
    """NumPy would make a text of it, on which Python itself fails."""
    texts = np.array(["fever", "pain"])
    texts.view(np.uint32)[2] = point
    np.savez(tmp_path / "x.npz", text=texts)
    fields = [text_field("text_columns", ("text",))]
    assert read_records(tmp_path / "x.npz", fields, on_bad_row="skip").columns[0] == ["pain"]
    with pytest.raises(DataEncodingError):
        read_table(tmp_path / "x.npz")

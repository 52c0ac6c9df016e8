import pytest

from aggregation import MessageError
from aggregation.crypto import sealed_box
from aggregation.crypto.sealed_box import OVERHEAD, PUBLIC_SIZE, BoxKey, seal_box


def test_a_box_opens_once_sealed_for_this_key_and_these_data():
    key = BoxKey()
    box = seal_box(key.public, b"content", b"data")
    assert len(key.public) == PUBLIC_SIZE
    assert len(box) == OVERHEAD + 7
    assert key.open(box, b"data") == b"content"
    assert seal_box(key.public, b"content", b"data") != box
    with pytest.raises(MessageError):
        key.open(box, b"other")
    with pytest.raises(MessageError):
        BoxKey().open(box, b"data")


@pytest.mark.parametrize("position", [0, 31, 32, 700, 1119, 1120, 1126, -1])
def test_no_part_can_be_exchanged(position):
    key = BoxKey()
    box = bytearray(seal_box(key.public, b"content", b""))
    box[position] ^= 1
    with pytest.raises(MessageError):
        key.open(bytes(box), b"")


def test_both_halves_are_needed():
    """A box made with one half of another key does not open: neither half can be dropped."""
    key, other = BoxKey(), BoxKey()
    for public in (
        key.public[:32] + other.public[32:],
        other.public[:32] + key.public[32:],
    ):
        with pytest.raises(MessageError):
            key.open(seal_box(public, b"content", b""), b"")


@pytest.mark.parametrize(
    "box", [b"", bytes(100), bytes(OVERHEAD - 1), bytes(OVERHEAD), bytes(5000)]
)
def test_what_is_no_box_is_refused(box):
    with pytest.raises(MessageError):
        BoxKey().open(box, b"")


@pytest.mark.parametrize("public", [b"", bytes(PUBLIC_SIZE), b"\xff" * PUBLIC_SIZE, bytes(32)])
def test_what_is_no_key_is_refused(public):
    with pytest.raises(MessageError):
        seal_box(public, b"content", b"")


def test_secrets_do_not_show():
    for key in (BoxKey(), sealed_box.KemKey()):
        assert "secret" in repr(key)
        with pytest.raises(TypeError):
            key.__reduce__()
    with pytest.raises(MessageError):
        sealed_box.KemKey().decapsulate(b"short")

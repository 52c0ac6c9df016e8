import numpy as np
import pytest

from aggregation import OpeningError
from aggregation.crypto import mac
from aggregation.crypto.mac import PRIME, LinearMac

KEY, TRANSCRIPT = b"k" * 32, bytes(range(32))
KEYED = LinearMac(KEY, TRANSCRIPT, 4096)


def draw(*shape, bound=2**59):
    return np.random.default_rng().integers(-bound, bound, shape, dtype=np.int64, endpoint=True)


def by_hand(packed, first=0):
    """Python integers, term by term."""
    return tuple(
        sum(
            int(a) * int(m)
            for k, row in enumerate(packed, first)
            for a, m in zip(alpha.chunk(k).tolist(), row.tolist(), strict=True)
        )
        % PRIME
        for alpha in KEYED._alphas
    )


def test_tags_are_the_inner_product():
    packed = draw(2, 4096)
    packed[0, :4] = [2**59, -(2**59), 0, -1]
    assert KEYED.tag(packed, 5) == by_hand(packed, 5)


def test_extremes_stay_exact():
    edge = 2**39  # from here on, a third limb
    for value in (2**59, -(2**59), edge, edge - 1, -edge, -edge - 1, 2**20 - 1, -1):
        packed = np.full((1, 4096), value, dtype=np.int64)
        assert KEYED.tag(packed) == by_hand(packed)


def test_tags_add_up_over_sites_and_ranges():
    a, b = draw(3, 4096, bound=2**50), draw(3, 4096, bound=2**50)
    total = mac.add_tags(KEYED.tag(a), KEYED.tag(b))
    assert total == KEYED.tag(a + b)
    assert total == mac.add_tags(KEYED.tag((a + b)[:1]), KEYED.tag((a + b)[1:], 1))


def test_any_other_sum_has_other_tags():
    packed = draw(2, 4096, bound=2**50)
    true = KEYED.tag(packed)
    for place in ((0, 0), (1, 4095)):
        other = packed.copy()
        other[place] += 1
        assert all(a != b for a, b in zip(KEYED.tag(other), true, strict=True))
    assert KEYED.tag(packed[::-1].copy()) != true
    assert LinearMac(b"x" * 32, TRANSCRIPT, 4096).tag(packed) != true
    assert LinearMac(KEY, bytes(32), 4096).tag(packed) != true


def test_the_pad_hides_a_sum_of_zero():
    assert KEYED.tag(np.zeros((1, 4096), dtype=np.int64)) == (0, 0)
    assert all(KEYED.pad())
    assert KEYED.pad() != LinearMac(b"x" * 32, TRANSCRIPT, 4096).pad()


def test_boxes_open_for_their_site_only():
    box = mac.seal_key(KEY, b"s" * 32, TRANSCRIPT, "a", "b")
    assert len(box) == mac.BOX_SIZE
    assert mac.open_key(box, b"s" * 32, TRANSCRIPT, "a", "b") == KEY
    for wrong in (
        (box, b"t" * 32, TRANSCRIPT, "a", "b"),
        (box, b"s" * 32, bytes(32), "a", "b"),
        (box, b"s" * 32, TRANSCRIPT, "a", "c"),
        (bytes(48), b"s" * 32, TRANSCRIPT, "a", "b"),
    ):
        with pytest.raises(OpeningError):
            mac.open_key(*wrong)


def test_tags_on_the_wire():
    tags = (1, PRIME - 1)
    assert mac.decode_tags(mac.encode_tags(tags)) == tags
    for wrong in (b"", bytes(15), b"\xff" * 16, PRIME.to_bytes(8, "little") * 2):
        with pytest.raises(OpeningError):
            mac.decode_tags(wrong)


def test_secrets_do_not_show():
    assert repr(KEYED) == "LinearMac(secret)"
    assert mac.new_key() != mac.new_key()
    with pytest.raises(OpeningError):
        LinearMac(KEY, TRANSCRIPT, 8192)

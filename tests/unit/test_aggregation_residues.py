import numpy as np
import pytest

from aggregation import ParameterError, UploadError, parameter_set
from aggregation.ckks import residues as r

Q = parameter_set("ckks-pk-4096-60-20").modulus


def draw(n, q=Q):
    return np.random.default_rng().integers(0, q, n, dtype=np.uint64)


@pytest.mark.parametrize("q", [Q, 1032193, 40961, 13])
def test_pack_round_trip(q):
    values = draw(256, q)
    values[:4] = [0, q - 1, q - 1, 0]
    data = r.pack(values, q)
    assert len(data) == r.packed_size(256, q) == 256 * q.bit_length() // 8
    np.testing.assert_array_equal(r.unpack(data, 256, q), values)


def test_pack_is_one_little_endian_number():
    values = draw(2)
    number = int(values[0]) | int(values[1]) << 60
    assert r.pack(values, Q) == number.to_bytes(15, "little")


@pytest.mark.parametrize("value", [Q, Q + 1, 2**60 - 1])
@pytest.mark.parametrize("position", [0, 1, 7])
def test_a_residue_that_is_not_below_q_is_refused(value, position):
    values = draw(8)
    values[position] = value
    with pytest.raises(UploadError, match="below the modulus"):
        r.unpack(r.pack(values, Q), 8, Q)


@pytest.mark.parametrize("size", [0, 14, 59, 61, 120])
def test_another_length_is_refused(size):
    with pytest.raises(UploadError, match="bytes"):
        r.unpack(bytes(size), 8, Q)


@pytest.mark.parametrize("data", [None, "x" * 60, 7, np.zeros(60, dtype=np.uint8)])
def test_another_type_is_refused(data):
    with pytest.raises(UploadError, match="must be bytes"):
        r.unpack(data, 8, Q)


@pytest.mark.parametrize("q", [2**61 - 1, 2**64 - 59, 8191])
def test_moduli_without_a_wire_form(q):
    with pytest.raises(ParameterError):
        r.packed_size(8, q)


def test_addition_is_exact():
    a, b = draw(1000), draw(1000)
    a[:3], b[:3] = [0, Q - 1, 1], [0, Q - 1, Q - 1]
    expected = [(int(x) + int(y)) % Q for x, y in zip(a, b, strict=True)]
    total = a.copy()
    r.add(total, b, Q)
    assert total.tolist() == expected
    r.subtract(total, b, Q)
    np.testing.assert_array_equal(total, a)
    r.subtract(total, a, Q)
    assert not total.any()


def test_signed_round_trip():
    values = np.array([0, 1, -1, Q // 2, -(Q // 2)], dtype=np.int64)
    np.testing.assert_array_equal(r.to_signed(r.from_signed(values, Q), Q), values)
    assert r.from_signed(values, Q).max() < Q

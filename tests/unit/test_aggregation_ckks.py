import os
import subprocess
import sys

import numpy as np
import pytest
import tenseal.sealapi as seal

from aggregation import BackendError, MessageError, ReleaseError, parameter_set
from aggregation.ckks import _ckks, _seal_streams, residues
from aggregation.ckks.parameters import ParameterSet

SET = parameter_set("ckks-pk-4096-60-20")
Q = SET.modulus


@pytest.fixture(scope="module")
def context():
    return _ckks.context(SET)


def draw(*shape):
    return np.random.default_rng().integers(0, Q, shape, dtype=np.uint64)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 31])
def test_transform_round_trips(context, n):
    values = draw(n, 4096)
    np.testing.assert_array_equal(context.from_ntt(context.to_ntt(values)), values)


def test_transform_is_the_negacyclic_evaluation(context):
    """X maps to primitive 8192nd roots of unity, all different; X**4096 to -1."""
    x = np.zeros((1, 4096), dtype=np.uint64)
    x[0, 1] = 1
    roots = [int(v) for v in context.to_ntt(x)[0]]
    assert len(set(roots)) == 4096
    assert all(pow(root, 4096, Q) == Q - 1 for root in roots[:64])


def test_zero_polynomials_are_ordinary_updates(context):
    zeros = np.zeros((3, 4096), dtype=np.uint64)
    assert not context.to_ntt(zeros).any()
    holder = _ckks.KeyHolder(context)
    encrypted = _ckks.Encryptor(context, holder.material).encrypt(zeros)
    opened = residues.to_signed(holder.decrypt(encrypted), Q)
    assert 0 < np.abs(opened).max() <= SET.noise_bound(1)


def test_modular_addition_is_seals(context):
    holder = _ckks.KeyHolder(context)
    encryptor = _ckks.Encryptor(context, holder.material)
    a, b = encryptor.encrypt(draw(2, 4096))
    total = a.copy()
    residues.add(total, b, Q)
    item = context.load_ciphertext(a, ntt=True)
    seal.Evaluator(context.seal).add_inplace(item, context.load_ciphertext(b, ntt=True))
    np.testing.assert_array_equal(context.save_ciphertext(item, 2), total)


def test_public_key_round_trips_as_residues(context):
    holder = _ckks.KeyHolder(context)
    assert len(holder.material) == 2 * 4096 * (60 + 20) // 8
    key = context.load_public_key(_ckks._unpack_key(holder.material, SET))
    assert _ckks._pack_key(context.save_public_key(key), SET) == holder.material


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m[:-1],
        lambda m: m + b"\0",
        lambda m: m[:0],
        lambda m: b"\xff" * 15 + m[15:],
        lambda m: m[:-5] + b"\xff" * 5,
    ],
)
def test_a_public_key_that_is_none_is_refused(context, spoil):
    material = spoil(_ckks.KeyHolder(context).material)
    with pytest.raises(MessageError):
        _ckks.Encryptor(context, material)


def test_every_residue_vector_is_decryptable(context):
    """No accepted input crashes SEAL: all residues below q are a ciphertext."""
    holder = _ckks.KeyHolder(context)
    for ciphertext in (
        draw(1, 2, 4096),
        np.full((1, 2, 4096), Q - 1, dtype=np.uint64),
        np.zeros((1, 2, 4096), dtype=np.uint64),
        np.stack([draw(4096), np.zeros(4096, dtype=np.uint64)])[None],
    ):
        assert holder.decrypt(ciphertext).shape == (1, 4096)


def test_a_destroyed_key_opens_nothing(context):
    holder = _ckks.KeyHolder(context)
    holder.destroy()
    with pytest.raises(ReleaseError):
        holder.decrypt(draw(1, 2, 4096))


def test_the_secret_key_does_not_show(context):
    holder = _ckks.KeyHolder(context)
    assert repr(holder) == "KeyHolder(secret)"
    with pytest.raises(TypeError):
        holder.__reduce__()


def test_other_primes_are_refused():
    other = ParameterSet("ckks-pk-4096-60-20", "ckks-pk", 4096, (60, 20), (Q, 1032193 + 2), 2, 128)
    with pytest.raises(BackendError, match="primes"):
        _ckks.context(other)


def test_another_transform_is_refused(monkeypatch):
    monkeypatch.setattr(_ckks, "_KNOWN_NTT", "0" * 64)
    with pytest.raises(BackendError, match="known polynomial"):
        _ckks._self_test(_ckks.Context(SET))


@pytest.mark.parametrize(
    "stream",
    [
        b"\0" * 16,
        _seal_streams._HEADER.pack(0xA15E, 16, 4, 4, 0, 0, 16),
        _seal_streams._HEADER.pack(0xA15E, 16, 4, 3, 0, 0, 17),
        _seal_streams._HEADER.pack(0xA15E, 16, 4, 3, 1, 0, 16),
        _seal_streams._HEADER.pack(0xA15E, 16, 4, 3, 2, 0, 20) + b"junk",
    ],
)
def test_an_unknown_stream_is_refused(stream):
    with pytest.raises(BackendError):
        _seal_streams._body(stream, 8)


def test_without_memory_files_nothing_is_written(monkeypatch, context):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(_ckks, "_scratch", _seal_streams.Scratch())
    with pytest.raises(BackendError, match="memory files"):
        context.to_ntt(draw(1, 4096))


def test_only_roles_that_need_it_load_tenseal():
    code = (
        "import sys, aggregation, aggregation.testing;"
        "sys.exit(any(m.split('.')[0] in ('tenseal', 'torch') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_forked_processes_draw_different_randomness(context):
    """A child inherits the library's state; what it encrypts must not repeat the parent's."""
    code = """
import os, hashlib
import numpy as np
from aggregation import parameter_set, quantize, Quantization, Segment
from aggregation.ckks import _ckks
from aggregation.crypto import pairwise
context = _ckks.context(parameter_set("ckks-pk-4096-60-20"))
encryptor = _ckks.Encryptor(context, _ckks.KeyHolder(context).material)
grid = Quantization(bits=8, segments=(Segment(name="a", size=999, range=1.0),))
encryptor.encrypt(np.zeros((1, 4096), dtype=np.uint64))
quantize(np.full(999, 0.1), grid)
pid = os.fork()
for draw in (
    encryptor.encrypt(np.zeros((1, 4096), dtype=np.uint64)).tobytes(),
    _ckks.KeyHolder(context).material,
    pairwise.EphemeralKey().public,
    quantize(np.full(999, 0.1), grid).tobytes(),
):
    os.write(1, (hashlib.sha256(draw).hexdigest() + "\\n").encode())
if pid:
    os._exit(os.waitpid(pid, 0)[1])
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.split()
    assert len(lines) == 8
    assert len(set(lines)) == 8

"""The committed vectors: what is on the wire today must be on it tomorrow.

Masks and packing are also recomputed here by other means than the package's.
"""

import hashlib
import hmac
import importlib.util
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from aggregation import PublicIdentity
from aggregation.protocol import messages

HERE = Path(__file__).parent
VECTORS = json.loads((HERE / "aggregation_vectors.json").read_text())


def test_the_package_reproduces_every_vector():
    spec = importlib.util.spec_from_file_location("generate", HERE / "aggregation_generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert json.loads(json.dumps(module.vectors())) == VECTORS


def hkdf(secret, salt, info):
    """RFC 5869 for one block of output."""
    prk = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()


def test_keys_by_hand():
    masks = VECTORS["masks"]
    secret, salt = bytes.fromhex(masks["secret"]), bytes.fromhex(masks["transcript"])
    domain = b"fmfl-secure/aggregation/v1/"
    a, b = b"\x00\x06site-a", b"\x00\x06site-b"
    assert hkdf(secret, salt, domain + b"pair/c0" + a + b).hex() == masks["pair_key"]
    assert hkdf(secret, salt, domain + b"self/c0" + a).hex() == masks["self_key"]
    sealed = hkdf(secret, salt, domain + b"self/commitment" + a)
    assert hashlib.sha256(sealed).hexdigest() == masks["commitment"]


@pytest.mark.parametrize("vector", VECTORS["masks"]["streams"])
def test_streams_by_hand(vector):
    key, q = bytes.fromhex(VECTORS["masks"]["pair_key"]), vector["modulus"]
    counter = vector["chunk"].to_bytes(8, "big") + bytes(8)
    words = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(8 * 40))
    kept = [
        value
        for i in range(0, len(words), 8)
        if (value := int.from_bytes(words[i : i + 8], "little") % 2 ** q.bit_length()) < q
    ]
    assert kept[:8] == vector["first"]


@pytest.mark.parametrize("vector", VECTORS["packing"])
def test_packing_by_hand(vector):
    base, n = vector["base"], vector["digits"]
    assert base == 2 * vector["sites"] * (2 ** (vector["bits"] - 1) - 1) + 1
    padded = vector["values"] + [0] * (8 * n)
    expected = [sum(d * base**j for j, d in enumerate(padded[i * n : i * n + n])) for i in range(8)]
    assert vector["coefficients"] == expected


@pytest.mark.parametrize("vector", VECTORS["residues"])
def test_residues_by_hand(vector):
    width = vector["modulus"].bit_length()
    values = vector["residues"]
    pairs = [values[i] | values[i + 1] << width for i in range(0, len(values), 2)]
    assert b"".join(p.to_bytes(width // 4, "little") for p in pairs).hex() == vector["packed"]


def test_sealed_messages_verify():
    signer = PublicIdentity.parse("site-a", VECTORS["messages"]["public_key"])
    kinds = {cls.KIND: cls for cls in messages.Body.__subclasses__()}
    for kind, sealed in VECTORS["messages"]["sealed"].items():
        messages.unseal(bytes.fromhex(sealed), kinds[kind], signer, 10_000)


def test_transcript_by_hand():
    state = hashlib.sha256(b"fmfl-secure/aggregation/transcript/v1")
    for part in (b"plan", b"key", b"a", b"b"):
        state.update(len(part).to_bytes(8, "big") + part)
    assert state.hexdigest() == VECTORS["messages"]["transcript_hash"]


def test_the_round_opens_to_the_sum():
    whole = VECTORS["round"]
    exact = [sum(column) for column in zip(*whole["integers"], strict=True)]
    assert whole["released"] == [exact] * 3


def test_points_by_hand():
    """AES-256-CTR under a key from SHAKE-256, word by word, without the package."""
    transcript, q = bytes.fromhex(VECTORS["collective"]["transcript"]), 1152921504606830593
    key = hashlib.shake_256(b"fmfl-secure/aggregation/v2/a" + transcript).digest(32)
    for vector in VECTORS["collective"]["points"]:
        counter = modes.CTR(vector["chunk"].to_bytes(8, "big") + bytes(8))
        state = Cipher(algorithms.AES(key), counter).encryptor().update(bytes(320))
        words = [int.from_bytes(state[i : i + 8], "little") % 2**60 for i in range(0, 320, 8)]
        assert [w for w in words if w < q][:8] == vector["first"]


def test_tags_by_hand():
    """Inner products in Python integers, coefficients from AES-256-CTR."""
    vector, p = VECTORS["mac"], 2**61 - 1
    transcript = bytes.fromhex(VECTORS["masks"]["transcript"])
    for i, expected in enumerate(vector["tags"]):
        name = str(i).encode()
        info = b"fmfl-secure/aggregation/v1/mac/alpha" + len(name).to_bytes(2, "big") + name
        key = hkdf(bytes.fromhex(vector["key"]), transcript, info)
        total = 0
        for k in (3, 4):
            counter = k.to_bytes(8, "big") + bytes(8)
            words = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(32784))
            alphas = [
                int.from_bytes(words[j : j + 8], "little") % 2**61 for j in range(0, 32784, 8)
            ]
            alphas = [a for a in alphas if a < p][:4096]
            total += sum(a * ((j + 4096 * (k - 3)) - 4096) * 2**37 for j, a in enumerate(alphas))
        assert str(total % p) == expected

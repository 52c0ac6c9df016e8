"""Write `aggregation_vectors.json`: fixed inputs and what the package makes of them.

Run it only when the protocol version changes; a difference at any other time is a bug.

    python tests/vectors/aggregation_generate.py
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregation import Identity, masking, messages, parameter_set, residues
from aggregation.packing import Packing

PATH = Path(__file__).with_name("aggregation_vectors.json")
SET = parameter_set("ckks-pk-4096-60-20")
TRANSCRIPT = bytes(range(32))
SECRET = bytes(range(32, 64))
SMALL_PRIME = 40961  # so that rejection happens


def identity() -> Identity:
    return Identity("site-a", Ed25519PrivateKey.from_private_bytes(bytes(range(64, 96))))


def packing_vectors() -> list[dict[str, object]]:
    result = []
    for sites, bits in ((3, 4), (8, 8), (8, 16), (128, 16), (5, 32)):
        encoding = SET.encoding(sites, bits)
        limit = encoding.limit
        values = [limit, -limit, 0, 1, -1, limit // 2, -limit]
        packed = Packing(len(values), 8, encoding).pack(np.array(values, dtype=np.int32))
        result.append(
            {
                "sites": sites,
                "bits": bits,
                "digits": encoding.digits,
                "scale_bits": encoding.scale_bits,
                "base": encoding.base,
                "values": values,
                "coefficients": packed.ravel().tolist(),
            }
        )
    return result


def residue_vectors() -> list[dict[str, object]]:
    result = []
    for q in (SET.modulus, SET.coeff_modulus[1], SMALL_PRIME):
        values = [0, 1, q - 1, q // 2, 12345 % q, q - 2]
        packed = residues.pack(np.array(values, dtype=np.uint64), q)
        result.append({"modulus": q, "residues": values, "packed": packed.hex()})
    return result


def mask_vectors() -> dict[str, object]:
    pair = masking.derive(SECRET, TRANSCRIPT, masking.PAIR_LABEL, "site-a", "site-b")
    streams = []
    for q in (SET.modulus, SMALL_PRIME):
        for chunk in (0, 1, 2**40):
            values = masking.Stream(pair, q, 4096).chunk(chunk)
            streams.append(
                {
                    "modulus": q,
                    "chunk": chunk,
                    "first": values[:8].tolist(),
                    "sha256": hashlib.sha256(values.astype("<u8").tobytes()).hexdigest(),
                }
            )
    return {
        "secret": SECRET.hex(),
        "transcript": TRANSCRIPT.hex(),
        "pair_key": pair.hex(),
        "self_key": masking.derive(SECRET, TRANSCRIPT, masking.SELF_LABEL, "site-a").hex(),
        "commitment": masking.commitment(SECRET, TRANSCRIPT, "site-a").hex(),
        "streams": streams,
    }


def message_vectors() -> dict[str, object]:
    bodies = (
        messages.Ready(TRANSCRIPT, SECRET),
        messages.UploadManifest(TRANSCRIPT, SECRET * 2, SECRET, b""),
        messages.OpeningList(TRANSCRIPT, (SECRET, TRANSCRIPT), b"first"),
        messages.Opening(TRANSCRIPT, SECRET, SECRET, TRANSCRIPT[:16]),
        messages.SumManifest(TRANSCRIPT, SECRET, SECRET, TRANSCRIPT[:16]),
        messages.Release(TRANSCRIPT, SECRET, b"\x01\x00\xff\xff", TRANSCRIPT[:16]),
    )
    sealed = {body.KIND: messages.seal(identity(), body).hex() for body in bodies}
    return {
        "public_key": identity().public.text,
        "sealed": sealed,
        "transcript_hash": messages.transcript_hash(b"plan", b"key", (b"a", b"b")).hex(),
    }


def vectors() -> dict[str, object]:
    return {
        "version": messages.VERSION,
        "packing": packing_vectors(),
        "residues": residue_vectors(),
        "masks": mask_vectors(),
        "messages": message_vectors(),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")

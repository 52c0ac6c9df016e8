"""Write `aggregation_vectors.json`: fixed inputs and what the package makes of them.

Run it only when the protocol version changes; a difference at any other time is a bug.

    python tests/vectors/aggregation_generate.py
"""

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aggregation import Coordinator, Identity, parameter_set
from aggregation.ckks import collective, residues, suites
from aggregation.ckks.packing import Packing
from aggregation.crypto import graph, mac, masking, pairwise, sealed_box
from aggregation.protocol import messages
from aggregation.testing import Federation

PATH = Path(__file__).with_name("aggregation_vectors.json")
SET = parameter_set("ckks-pk-4096-60-20")
COLLECTIVE = parameter_set("ckks-collective-4096-60-aes")
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


def mac_vectors() -> dict[str, object]:
    packed = (np.arange(2 * 4096, dtype=np.int64).reshape(2, 4096) - 4096) * 2**37
    keyed = mac.LinearMac(SECRET, TRANSCRIPT, 4096)
    return {
        "key": SECRET.hex(),
        "packed": "(j - 4096) 2**37 for j below 8192, in two chunks of 4096, from chunk 3",
        "tags": [str(tag) for tag in keyed.tag(packed, 3)],
        "pad": [str(tag) for tag in keyed.pad()],
    }


def collective_vectors() -> dict[str, object]:
    result = []
    for chunk in (0, 1, 2**40):
        points = collective.public_stream(TRANSCRIPT, COLLECTIVE).chunk(chunk)
        digest = hashlib.sha256(points.astype("<u8").tobytes()).hexdigest()
        result.append({"chunk": chunk, "first": points[:8].tolist(), "sha256": digest})
    return {"transcript": TRANSCRIPT.hex(), "points": result}


def graph_vectors() -> list[dict[str, object]]:
    result = []
    for sites in (5, 12):
        made = [list(graph.initiates(sites, index, TRANSCRIPT)) for index in range(sites)]
        result.append({"sites": sites, "initiates": made})
    return result


class _Fixed:
    """All randomness of a round from one SHAKE-256, and boxes that are left open.

    ML-KEM's own randomness cannot be fixed from outside, so a box here is zeros and its content,
    and the decryptor's announced key is a constant.
    """

    def __init__(self) -> None:
        self.drawn = 0
        self.patches = ExitStack()

    def draw(self, count: int) -> bytes:
        self.drawn += 1
        return hashlib.shake_256(b"vector" + self.drawn.to_bytes(8, "big")).digest(count)

    def __enter__(self) -> None:
        fixed = self

        class Box:
            def __init__(self) -> None:
                self.public = bytes(range(256)) * 4 + bytes(sealed_box.PUBLIC_SIZE - 1024)

            def open(self, box: bytes, _associated: bytes) -> bytes:
                return box[sealed_box.OVERHEAD :]

        def private() -> X25519PrivateKey:
            return from_bytes(fixed.draw(32))

        from_bytes = X25519PrivateKey.from_private_bytes
        for target, name, value in (
            (collective.os, "urandom", self.draw),
            (collective.secrets, "token_bytes", self.draw),
            (sealed_box, "BoxKey", Box),
            (
                sealed_box,
                "seal_box",
                lambda _key, content, _ad: bytes(sealed_box.OVERHEAD) + content,
            ),
            (sealed_box, "check_public", lambda *_: None),  # the key of an open box is none
            (pairwise, "X25519PrivateKey", SimpleNamespace(generate=private)),
        ):
            self.patches.enter_context(mock.patch.object(target, name, value))

    def __exit__(self, *_error: object) -> None:
        self.patches.close()


def round_vectors() -> dict[str, object]:
    """A whole round of the collective suite with fixed keys."""
    fed = Federation(3, size=12, bits=8, suite="ckks-collective")
    names = (*fed.names, "aggregator", "decryptor", "coordinator")
    for i, name in enumerate(names):
        key = Ed25519PrivateKey.from_private_bytes(bytes([i + 1]) * 32)
        fed.identities[name] = Identity(name, key)
    fed.coordinator = Coordinator(fed.identities["coordinator"])
    fed.decryptor = fed.new_decryptor()
    suites.new_key(COLLECTIVE)  # loads the library, which draws bytes of its own
    with _Fixed():
        attempt = fed.start()
        aggregator = fed.new_aggregator(attempt)
        uploads = []
        for i, (name, site) in enumerate(attempt.sites.items()):
            integers = np.arange(12, dtype=np.int32) * (i + 1) - 20
            attempt.integers[name] = integers
            uploads.append(site.upload(attempt.cohort, integers))
            aggregator.add(uploads[-1].manifest, uploads[-1].chunks)
        listed = fed.decryptor.confirm(
            attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
        )
        openings = [site.open(listed) for site in attempt.sites.values()]
        for opening in openings:
            aggregator.add_opening(opening)
        total = aggregator.total()
        release = fed.decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)
        released = [site.verify(release).tolist() for site in attempt.sites.values()]
    return {
        "seeds": "Ed25519: bytes([i + 1]) * 32 for site-0..2, aggregator, decryptor, coordinator",
        "randomness": "draw n is SHAKE-256(b'vector' + n as 8 bytes big endian), n from 1",
        "plan": attempt.plan_message.hex(),
        "cohort_sha256": hashlib.sha256(attempt.cohort).hexdigest(),
        "transcript": aggregator.transcript.hex(),
        "integers": [values.tolist() for values in attempt.integers.values()],
        "uploads": [
            {
                "manifest": upload.manifest.hex(),
                "chunks_sha256": [hashlib.sha256(c).hexdigest() for c in upload.chunks],
                "first_bytes": upload.chunks[0][:32].hex(),
            }
            for upload in uploads
        ],
        "openings": [opening.hex() for opening in openings],
        "sum_sha256": [hashlib.sha256(chunk).hexdigest() for chunk in total.chunks],
        "release": release.hex(),
        "released": released,
    }


def vectors() -> dict[str, object]:
    return {
        "version": messages.VERSION,
        "packing": packing_vectors(),
        "residues": residue_vectors(),
        "masks": mask_vectors(),
        "messages": message_vectors(),
        "mac": mac_vectors(),
        "collective": collective_vectors(),
        "graph": graph_vectors(),
        "round": round_vectors(),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")

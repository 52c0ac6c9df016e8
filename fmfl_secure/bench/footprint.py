"""Measures a round's bytes on the wire, and the aggregator's memory."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from aggregation.ckks import residues
from aggregation.crypto import mac, masking, sealed_box
from aggregation.protocol import messages
from aggregation.protocol.messages import Opening, Sigma, UploadManifest
from aggregation.protocol.uploads import Upload
from aggregation.testing import Federation


def density(parameters: int, sites: int, bits: int, suite: str = "ckks-collective") -> float:
    """Bytes a parameter that one site sends in a round, everything included.

    That is its single-use keys, exchange, manifest, chunks, sealed secret and opening. One real
    upload is made; all uploads of a round are of one size.
    """
    fed = Federation(
        sites, size=parameters, bits=bits, suite=suite, key_agreement="x25519-mlkem768"
    )
    attempt = fed.start()
    site, handed = attempt.sites[fed.names[0]], fed.handed(attempt)[fed.names[0]]
    upload = site.upload(attempt.cohort, fed.random_integers(), handed)
    opening = Opening(bytes(32), bytes(32), bytes(32), bytes(mac.TAG_BYTES))
    rest = (
        len(site.ready())
        + max(map(len, attempt.exchanges))
        + len(messages.seal(fed.identities[fed.names[0]], opening))
    )
    return (upload.size_bytes + rest) / parameters


def peak_mib(arguments: list[object]) -> float:
    """Peak of `run_aggregator` or `run_pattern`, in a process of its own, in MiB."""
    command = [sys.executable, "-m", __name__, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return float(done.stdout.split()[-1])


def _resident_peak_mib() -> float:
    # VmHWM belongs to this process image; getrusage would inherit the parent's.
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status does not tell the peak: run on Linux")


def run_aggregator(parameters: int, sites: int, bits: int, suite: str) -> float:
    """An aggregator's whole attempt in this process, fed with uploads that take no memory.

    Masked chunks are uniform residues, so random ones do; one chunk stands for all of an upload.

    Returns:
        Peak resident memory of this process, in MiB.
    """
    fed = Federation(sites, size=parameters, bits=bits, suite=suite)
    attempt = fed.start()
    aggregator = fed.new_aggregator(attempt)
    round_ = aggregator.round
    rng = np.random.default_rng()
    transcript = aggregator.transcript
    seeds = {name: secrets.token_bytes(masking.SEED_SIZE) for name in fed.names}
    for name in fed.names:
        values = rng.integers(0, round_.parameters.modulus, round_.chunk_residues, dtype=np.uint64)
        chunk = residues.pack(values, round_.parameters.modulus)
        digests = messages.digest(chunk) * round_.packing.chunks
        chunks = repeat(chunk, round_.packing.chunks)
        if round_.collective:
            box = bytes(sealed_box.OVERHEAD + round_.polynomial_size)
            sealed = messages.seal(fed.identities[name], Sigma(transcript, box))
            digests += messages.digest(sealed)
            chunks = chain(chunks, (sealed,))  # type: ignore[assignment]
        manifest = UploadManifest(
            transcript,
            digests,
            masking.commitment(seeds[name], transcript, name),
            bytes(mac.BOX_SIZE * (sites - 1)),
        )
        aggregator.add(messages.seal(fed.identities[name], manifest), chunks)
    listed = messages.digest(aggregator.opening_list())
    for name in fed.names:
        opening = Opening(transcript, listed, seeds[name], bytes(mac.TAG_BYTES))
        aggregator.add_opening(messages.seal(fed.identities[name], opening))
    summed: Upload = aggregator.total()
    if len(summed.chunks) != round_.upload_items:
        raise ValueError("the sum has another number of chunks")
    return _resident_peak_mib()


def run_pattern(sites: int, sizes: Sequence[int]) -> float:
    """The pattern's aggregator in this process, holding the sum and one tensor of one site.

    Returns:
        Peak resident memory of this process, in MiB.
    """
    from fmfl_secure.demonstration.per_tensor_ckks import PerTensorCkks  # noqa: PLC0415 - TenSEAL, for the comparison only

    pattern = PerTensorCkks()
    done = []
    for size in sizes:
        tensor = pattern.encrypt(np.full(size, 0.001, dtype=np.float32), [size])
        done += pattern.add([tensor] * min(sites, 2))
    return _resident_peak_mib()


if __name__ == "__main__":
    which, *rest = json.loads(sys.argv[1])
    measured = run_aggregator(*rest) if which == "ours" else run_pattern(rest[0], rest[1:])
    sys.stdout.write(f"{measured}\n")

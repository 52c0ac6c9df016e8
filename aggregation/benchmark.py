"""Measure the protocol beside the per-tensor pattern: one process, one machine, interleaved.

Everything a role does in a round is in its figure: a site's quantisation, key agreement, masks,
encryption, signatures, opening and MAC; the aggregator's checks of every digest and residue; the
key holder's opening of the sealed secrets, decryption, rounding and dequantisation. A repeat runs
both, one after the other, so that what else the machine does hits both; ratios are medians of
paired ratios.
"""

from __future__ import annotations

import contextlib
import gc
import json
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from . import mac, masking, messages, residues, sealed_box
from .messages import Opening, Sigma, UploadManifest
from .protocol import Upload
from .quantization import Quantization, Segment, dequantize, quantize
from .testing import Federation

# Tensors of a LoRA adapter of rank 8, as (count, values): queries and values of every layer.
GPT2_R8 = ((12, 8 * 768), (12, 2304 * 8))
MINILM_R8 = ((24, 8 * 384),)
_MIB = 1024 * 1024


@dataclass(slots=True)
class Figures:
    """One arm's figures; rates in million parameters a second."""

    upload_bytes_per_parameter: float
    client_mparams_per_s: float
    aggregate_mparams_per_s: float
    decrypt_mparams_per_s: float
    aggregator_peak_mib: float = 0.0


@dataclass(slots=True)
class Comparison:
    """What `fmfl-secure bench aggregation` prints."""

    parameters: int
    sites: int
    bits: int
    suite: str
    tensors: int
    repeats: int
    exact: bool
    ours: Figures
    per_tensor_ckks: Figures
    ratios: dict[str, float]
    verify_mparams_per_s: float
    samples: list[dict[str, dict[str, float]]] = field(repr=False)

    def as_dict(self) -> dict[str, object]:
        """As JSON: this project's figures at the top level."""
        data = asdict(self)
        return {**data.pop("ours"), **data}


def tensor_sizes(parameters: int) -> list[int]:
    """Sizes of tensors like those of GPT-2's adapter, cut to `parameters` values."""
    sizes: list[int] = []
    left = parameters
    while left:
        size = min((8 * 768, 2304 * 8)[len(sizes) % 2], left)
        sizes.append(size)
        left -= size
    return sizes


def expand(shape: Sequence[tuple[int, int]]) -> list[int]:
    """Sizes of an adapter's tensors from (count, values) pairs."""
    return [size for count, size in shape for _ in range(count)]


def compare(
    sizes: Sequence[int],
    sites: int,
    bits: int,
    *,
    repeats: int = 3,
    suite: str = "ckks-collective",
    peak: bool = True,
) -> Comparison:
    """Run whole rounds beside the per-tensor pattern.

    Args:
        sizes: Values of each tensor.
        sites: Cohort.
        bits: Width of a quantised value.
        repeats: Paired repeats; medians are reported.
        suite: Protocol suite.
        peak: Also measure each arm's aggregator in a process of its own.

    Returns:
        Medians, and the ratio of each figure to the pattern's (upload: the pattern's to ours).
    """
    from ._per_tensor import PerTensorCkks  # noqa: PLC0415 - TenSEAL, for the comparison only

    total = sum(sizes)
    pattern = PerTensorCkks()
    samples: list[dict[str, dict[str, float]]] = []
    exact = True
    rng = np.random.default_rng()
    for number in range(repeats):
        updates = [rng.normal(scale=0.003, size=total).astype(np.float32) for _ in range(sites)]
        mine, right = _round(sizes, sites, bits, updates, suite)
        exact = exact and right
        theirs = _pattern_round(pattern, sizes, sites, updates[number % sites])
        samples.append({"ours": mine, "per_tensor_ckks": theirs})
        del updates
        gc.collect()
    names = ("upload", "client", "aggregate", "decrypt")

    def median(arm: str, name: str) -> float:
        return statistics.median(sample[arm][name] for sample in samples)

    arms = {
        arm: Figures(*(median(arm, name) for name in names)) for arm in ("ours", "per_tensor_ckks")
    }
    ratios = {
        name: statistics.median(s["ours"][name] / s["per_tensor_ckks"][name] for s in samples)
        for name in names
    }
    ratios["upload"] = 1 / ratios["upload"]
    if peak:
        arms["ours"].aggregator_peak_mib = peak_mib(["ours", total, sites, bits, suite])
        arms["per_tensor_ckks"].aggregator_peak_mib = peak_mib(["pattern", sites, *sizes])
        ratios["aggregator_peak"] = (
            arms["per_tensor_ckks"].aggregator_peak_mib / arms["ours"].aggregator_peak_mib
        )
    return Comparison(
        parameters=total,
        sites=sites,
        bits=bits,
        suite=suite,
        tensors=len(sizes),
        repeats=repeats,
        exact=exact,
        ours=arms["ours"],
        per_tensor_ckks=arms["per_tensor_ckks"],
        ratios=ratios,
        verify_mparams_per_s=median("ours", "verify"),
        samples=samples,
    )


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _round(
    sizes: Sequence[int],
    sites: int,
    bits: int,
    updates: list[npt.NDArray[np.float32]],
    suite: str,
) -> tuple[dict[str, float], bool]:
    total = sum(sizes)
    hybrid = "x25519-mlkem768"
    fed = Federation(sites, size=total, bits=bits, suite=suite, key_agreement=hybrid)
    fed.quantization = Quantization(
        bits=bits,
        segments=tuple(
            Segment(name=f"tensor-{i}", size=size, range=0.02) for i, size in enumerate(sizes)
        ),
    )
    clock = _Clock()
    with clock.measure("setup"):
        attempt = fed.start(exchange=False)
    aggregator = fed.new_aggregator(attempt)
    for name in fed.names:
        with clock.measure("client"):
            own = attempt.sites[name].exchange(attempt.cohort)
        attempt.exchanges = (*attempt.exchanges, own)
    exact_sum = np.zeros(total, dtype=np.int64)
    upload_bytes = 0
    for i, name in enumerate(fed.names):
        site = attempt.sites[name]
        with clock.measure("client"):
            integers = quantize(updates[i], fed.quantization)
            upload = site.upload(attempt.cohort, integers, attempt.exchanges)
        with clock.measure("aggregate"):
            aggregator.add(upload.manifest, upload.chunks)
        exact_sum += integers
        upload_bytes += upload.size_bytes + len(site.ready()) + len(attempt.exchanges[i])
        del upload, integers
    with clock.measure("aggregate"):
        listed = aggregator.opening_list()
    with clock.measure("decrypt"):
        attempt.opening_list = fed.decryptor.confirm(
            attempt.cohort, listed, aggregator.sealed_secrets()
        )
    for site in attempt.sites.values():
        with clock.measure("client"):
            opening = site.open(attempt.opening_list)
        with clock.measure("aggregate"):
            aggregator.add_opening(opening)
        upload_bytes += len(opening)
    with clock.measure("aggregate"):
        summed = aggregator.total()
    with clock.measure("decrypt"):
        release = fed.decryptor.release(
            attempt.cohort, attempt.opening_list, summed.manifest, summed.chunks
        )
    with clock.measure("verify"):
        verified = attempt.sites[fed.names[0]].verify(release)
    opened = fed.coordinator.verify(attempt.cohort, release)
    with clock.measure("decrypt"):
        dequantize(opened, fed.quantization, float(sites))
    right = np.array_equal(verified, exact_sum) and np.array_equal(opened, exact_sum)
    seconds = clock.seconds
    rates = {
        "upload": upload_bytes / sites / total,
        "client": sites * total / seconds["client"] / 1e6,
        "aggregate": sites * total / seconds["aggregate"] / 1e6,
        "decrypt": total / seconds["decrypt"] / 1e6,
        "verify": total / seconds["verify"] / 1e6,
    }
    return rates, right


def _pattern_round(
    pattern: object, sizes: Sequence[int], sites: int, update: npt.NDArray[np.float32]
) -> dict[str, float]:
    from ._per_tensor import PerTensorCkks  # noqa: PLC0415 - TenSEAL, for the comparison only

    if not isinstance(pattern, PerTensorCkks):
        raise TypeError("the pattern to compare with is another one")
    clock, total = _Clock(), sum(sizes)
    with clock.measure("client"):
        upload = pattern.encrypt(update, sizes)
    with clock.measure("aggregate"):
        # The same bytes for every site: loading and adding them costs what other bytes would.
        summed = pattern.add([upload] * sites)
    with clock.measure("decrypt"):
        pattern.decrypt(summed)
    return {
        "upload": sum(map(len, upload)) / total,
        "client": total / clock.seconds["client"] / 1e6,
        "aggregate": sites * total / clock.seconds["aggregate"] / 1e6,
        "decrypt": total / clock.seconds["decrypt"] / 1e6,
    }


def density(parameters: int, sites: int, bits: int, suite: str = "ckks-collective") -> float:
    """Bytes a parameter that one site sends in a round, everything included.

    That is its single-use keys, exchange, manifest, chunks, sealed secret and opening. One real
    upload is made; all uploads of a round are of one size.
    """
    fed = Federation(
        sites, size=parameters, bits=bits, suite=suite, key_agreement="x25519-mlkem768"
    )
    attempt = fed.start()
    site = attempt.sites[fed.names[0]]
    upload = site.upload(attempt.cohort, fed.random_integers(), attempt.exchanges)
    opening = Opening(bytes(32), bytes(32), bytes(32), bytes(mac.TAG_BYTES))
    rest = (
        len(site.ready())
        + max(map(len, attempt.exchanges))
        + len(messages.seal(fed.identities[fed.names[0]], opening))
    )
    return (upload.size_bytes + rest) / parameters


# Peak memory, in a process that does nothing else.


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
    from ._per_tensor import PerTensorCkks  # noqa: PLC0415 - TenSEAL, for the comparison only

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

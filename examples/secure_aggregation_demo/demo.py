"""Secure aggregation on one screen: what each role saw, and an attack that fails.

    python examples/secure_aggregation_demo/demo.py

Four sites sum a vector, twice: once as it should be, once with an aggregator that adds 1,000 to
the first value. Nothing here is a mock: the roles and the bytes between them are the real ones.
"""

import numpy as np

from aggregation import AggregationError, SumUpload, dequantize, messages, quantize, residues
from aggregation.messages import SumManifest
from aggregation.testing import Attempt, Federation


def line(role: str, text: str) -> None:
    """Print what a role saw."""
    print(f"{role:>12}  {text}")


def forged(fed: Federation, attempt: Attempt, total: SumUpload) -> SumUpload:
    """What a malicious aggregator hands over: the sum with 1,000 more in its first value."""
    round_ = fed.new_aggregator(attempt).round
    values = round_.unpack_chunks([total.chunks[0]])[0]
    more = np.array([1000 << round_.packing.encoding.scale_bits], dtype=np.uint64)
    residues.add(values[0, :1], more, round_.parameters.modulus)
    chunks = (residues.pack(values, round_.parameters.modulus), *total.chunks[1:])
    true = messages.unseal(total.manifest, SumManifest, fed.public["aggregator"], 1 << 20)
    digests = b"".join(map(messages.digest, chunks))
    body = SumManifest(true.transcript, true.opening_list, digests, true.tags)
    return SumUpload(messages.seal(fed.identities["aggregator"], body), chunks)


def run(fed: Federation, number: int, *, attack: bool) -> None:
    """One round, told by its roles."""
    attempt = fed.start(fed.plan(round_=number))
    aggregator = fed.new_aggregator(attempt)
    for i, (name, site) in enumerate(attempt.sites.items()):
        update = np.random.default_rng(i).normal(size=6) / 5
        attempt.integers[name] = quantize(update, fed.quantization)
        upload = site.upload(attempt.cohort, attempt.integers[name], attempt.exchanges)
        aggregator.add(upload.manifest, upload.chunks)
        if not attack:
            line(name, f"its own update: {np.round(update, 3)}")
    sealed = aggregator.round.unpack_chunks([upload.chunks[0]])[0][0, :3]
    seen = residues.to_signed(sealed, aggregator.round.parameters.modulus)
    listed = fed.decryptor.confirm(
        attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
    )
    for site in attempt.sites.values():
        aggregator.add_opening(site.open(listed))
    total = aggregator.total()
    if attack:
        total = forged(fed, attempt, total)
        line("aggregator", "adds an encrypted 1,000 to the first value of the sum")
    else:
        line("aggregator", f"of site-3's first values: {seen}, uniform noise")
    release = fed.decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)
    line("decryptor", f"one sum, no update: {fed.coordinator.verify(attempt.cohort, release)}")
    for name, site in attempt.sites.items():
        try:
            mean = dequantize(site.verify(release), fed.quantization, 4.0)
            line(name, f"the sum is right, the mean {np.round(mean, 3)}")
        except AggregationError as error:
            line(name, f"{error.code}: {error}")


def main() -> None:
    """Run a round as it should be, then the attack."""
    fed = Federation(4, size=6, bits=16, suite="ckks-collective", key_agreement="x25519-mlkem768")
    run(fed, 1, attack=False)
    print("\nThe next round, with a malicious aggregator:\n")
    run(fed, 2, attack=True)


if __name__ == "__main__":
    main()

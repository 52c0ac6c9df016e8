"""The attacks, one after the other, on a naive round and on recorded rounds of this protocol.

Every outcome is decided by a figure that is computed here from what the attacker got: the share of
the update's values that it has right, or how like the private picture its picture is.

`demonstration.run` calls `run_attacks` with the recorded rounds, and `demonstration.inversions`
adds gradient inversion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aggregation.ckks import _ckks, collective, residues
from fmfl_secure.demonstration import collusion, key_recovery
from fmfl_secure.demonstration.findings import Attack, Outcome
from fmfl_secure.demonstration.naive import NaiveRound
from fmfl_secure.demonstration.protected import Recording, values_of

Values = npt.NDArray[np.float64]

_HALF = 0.5  # of the values right is opened; what is not opened has a few in a thousand by chance
_TOLERANCE = 1e-3  # of the largest value of the update


@dataclass(frozen=True, slots=True, repr=False)
class Rounds:
    """The rounds that are attacked, honest ones and tampered ones.

    Attributes:
        victim: Name of the site that is attacked.
        naive: A round of the naive pattern.
        naive_update: The victim's update there.
        here: A round of this protocol.
        passed: One whose aggregator handed the victim's upload over as the sum.
        altered: One whose aggregator added `constant` to the sum.
        constant: In the units of the grid.
    """

    victim: str
    naive: NaiveRound
    naive_update: Values
    here: Recording
    passed: Recording
    altered: Recording
    constant: int

    @property
    def others(self) -> list[str]:
        """All sites but the victim."""
        return [name for name in self.here.integers if name != self.victim]


def share_right(read: Values, truth: Values) -> float:
    """Share of the values that were read right."""
    tolerance = _TOLERANCE * float(np.abs(truth).max())
    return float(np.mean(np.abs(read - truth) <= tolerance))


def in_the_clear(recording: Recording, name: str) -> Values:
    """An upload's residues, taken for the message as they are."""
    return as_message(recording, recording.target(name).c0)


def as_message(recording: Recording, values: residues.Residues) -> Values:
    """Residues, shape (chunks, N), taken for a message; values of an update, shape (d,)."""
    packing = recording.round.packing
    scale_bits = packing.encoding.scale_bits
    centred = residues.to_signed(values, recording.round.parameters.modulus)
    integers = collusion.integers_of((centred + (1 << scale_bits - 1)) >> scale_bits, packing)
    return values_of(integers, recording.federation.quantization)


def opened_by(recording: Recording, name: str, colluders: list[str]) -> Values:
    """Opens a site's upload as key holder and server can, with the masks colluders know."""
    known = collusion.pairs_known_to(colluders, recording.pairs[name])
    packing = recording.round.packing
    opened = collusion.open_upload(recording.target(name), known, packing)
    integers = collusion.integers_of(opened.coefficients, packing)
    return values_of(integers, recording.federation.quantization)


def left_of_the_sum(recording: Recording, name: str) -> Values:
    """A site's update, by all other sites, from the released sum."""
    released = recording.released
    if released is None:
        return np.zeros(recording.round.packing.size)
    known = [values for other, values in recording.integers.items() if other != name]
    rest = collusion.last_of_the_sum(released, known)
    return values_of(rest, recording.federation.quantization)


def run_attacks(rounds: Rounds) -> list[Attack]:
    """Every attack but gradient inversion, on both."""
    one, some = rounds.others[:1], rounds.others[:-1]
    return [
        _server_alone(rounds),
        _opening(
            rounds,
            "key-holder-alone",
            "The key holder alone opens one site's upload",
            "The key holder, with a copy of every upload and of every sealed box.",
            [],
            "The upload is masked under its encryption, and so is the secret in the box: what "
            "opens is uniform. Only over the whole cohort do the masks cancel.",
        ),
        _site_and_server(rounds, one[0]),
        _opening(
            rounds,
            "site-and-key-holder",
            "A colluding site and the key holder open another site's upload",
            f"{one[0]} and the key holder, with all that the server stores.",
            one,
            "The colluding site takes away the mask that it shares with the victim; those of the "
            "other sites remain.",
        ),
        _opening(
            rounds,
            "most-sites",
            "All other sites but one, the server and the key holder together",
            f"{' and '.join(some)}, server and key holder.",
            some,
            "One honest neighbour is enough: its mask is still on the upload and on the secret.",
        ),
        _all_others(rounds),
        _key_recovery(rounds),
        _altered_sum(rounds),
    ]


def _truth(recording: Recording, name: str) -> Values:
    return values_of(recording.integers[name], recording.federation.quantization)


def _outcome(read: Values, truth: Values, *, expected: bool, got: str, nothing: str) -> Outcome:
    share = share_right(read, truth)
    succeeded = share >= _HALF
    figure = f"{share:.1%} of {truth.size:,} values right"
    return Outcome(succeeded, expected, figure, got if succeeded else nothing)


def _naive(rounds: Rounds, read: Values, got: str) -> Outcome:
    return _outcome(read, rounds.naive_update, expected=True, got=got, nothing="nothing")


def _server_alone(rounds: Rounds) -> Attack:
    here, victim = rounds.passed, rounds.victim
    truth = _truth(here, victim)
    reads = [in_the_clear(here, victim)]
    if here.released is not None:
        reads.append(values_of(here.released, here.federation.quantization))
    best = max(reads, key=lambda read: share_right(read, truth))
    refused = ", ".join(here.refusals) or "nobody"
    return Attack(
        id="server-alone",
        title="The server alone has the key holder open one upload as if it were the sum",
        attacker="The server, with what it stores. The key holder is honest.",
        naive=_naive(
            rounds,
            rounds.naive.as_server(victim),
            "the site's whole update: the key holder cannot tell an upload from a sum",
        ),
        here=_outcome(
            best,
            truth,
            expected=False,
            got="the site's update",
            nothing=f"noise, and a round that was refused by {refused}",
        ),
        because="Without the other uploads the masks do not cancel, whatever the server signs, and "
        "the attempt's key is destroyed by this one use.",
    )


def _site_and_server(rounds: Rounds, colluder: str) -> Attack:
    here, victim = rounds.here, rounds.victim
    known = collusion.pairs_known_to([colluder], here.pairs[victim])
    target = here.target(victim)
    from_masks = collusion.open_upload(target, known, here.round.packing).c0
    return Attack(
        id="site-and-server",
        title="A colluding site and the server open another site's upload",
        attacker=f"{colluder} and the server.",
        naive=_naive(
            rounds,
            rounds.naive.as_key_holder(victim),
            "the site's whole update: every site holds the key",
        ),
        here=_outcome(
            as_message(here, from_masks),
            _truth(here, victim),
            expected=False,
            got="the site's update",
            nothing="noise",
        ),
        because="No site holds a key that opens anything but its own upload, and the masks of the "
        "other sites remain.",
    )


def _opening(
    rounds: Rounds, name: str, title: str, attacker: str, colluders: list[str], because: str
) -> Attack:
    here, victim = rounds.here, rounds.victim
    return Attack(
        id=name,
        title=title,
        attacker=attacker,
        naive=_naive(rounds, rounds.naive.as_key_holder(victim), "the site's whole update"),
        here=_outcome(
            opened_by(here, victim, colluders),
            _truth(here, victim),
            expected=False,
            got="the site's update",
            nothing="noise",
        ),
        because=because,
    )


def _all_others(rounds: Rounds) -> Attack:
    here, victim = rounds.here, rounds.victim
    return Attack(
        id="all-other-sites",
        title="All other sites together subtract their updates from the released sum",
        attacker=f"{', '.join(rounds.others)}. Neither server nor key holder is needed.",
        naive=_naive(
            rounds, rounds.naive.as_key_holder(victim), "the site's whole update, without noise"
        ),
        here=_outcome(
            left_of_the_sum(here, victim),
            _truth(here, victim),
            expected=True,
            got="the site's update to the last integer, with all of its noise in it",
            nothing="nothing",
        ),
        because="No secure aggregation can prevent it: a sum less all other terms is the last one. "
        "What protects the last site is the noise that it added itself, and its own min_sites.",
    )


def _key_recovery(rounds: Rounds) -> Attack:
    secret, read = rounds.naive.with_recovered_key(rounds.victim)
    largest = int(np.abs(secret).max())
    naive = _naive(rounds, read, "the secret key, and with it every upload of every round")
    here = rounds.here
    found = _secret_from_release(here)
    sites = len(here.integers)
    succeeded = key_recovery.is_secret(found, sites)
    return Attack(
        id="key-recovery",
        title="The key is computed from what is published",
        attacker="The server, with the ciphertext of the sum and the published result.",
        naive=Outcome(
            naive.succeeded and key_recovery.is_secret(secret),
            naive.expected,
            f"largest coefficient of what was found: {largest:,}, of a key 1; {naive.figure}",
            naive.got,
        ),
        here=Outcome(
            succeeded,
            False,
            f"largest coefficient of what was found: {int(np.abs(found).max()):.1e}, of a sum of "
            f"{sites} secrets {sites} at most",
            "the sum of the sites' secrets" if succeeded else "large random numbers",
        ),
        because="What is released are integers, rounded from above the encryption's noise, so that "
        "the noise is not known and the equation has one unknown too many. And the key was of this "
        "attempt only.",
    )


def _secret_from_release(recording: Recording) -> npt.NDArray[np.int64]:
    round_, released = recording.round, recording.released
    if released is None:
        return np.full(round_.packing.degree, np.iinfo(np.int64).max)
    packing = round_.packing
    message = packing.pack_sum(released, 0, 1)[0] << packing.encoding.scale_bits
    c0 = round_.unpack_chunks(recording.total.chunks[:1])[0, 0]
    points = collective.public_stream(recording.transcript, round_.parameters).chunk(0)
    ring = _ckks.context(round_.parameters)
    return key_recovery.secret_of_a_sum(message, c0, points, ring)


def _altered_sum(rounds: Rounds) -> Attack:
    here = rounds.altered
    constant = float(values_of(np.array([rounds.constant]), here.federation.quantization)[0])
    moved = float(rounds.naive.with_added(constant)[0] - rounds.naive.published[0])
    unnoticed = abs(moved - constant) < _TOLERANCE * constant
    sites = [name for name in here.integers if name in here.refusals]
    accepted = here.released is not None and len(sites) < len(here.integers)
    return Attack(
        id="altered-sum",
        title="The server changes the sum",
        attacker=f"The server adds {constant:.3g} to the sum's first value, under encryption.",
        naive=Outcome(
            unnoticed,
            True,
            f"the published value moved by {moved:.3g}; no party can check it",
            "a result of its choice" if unnoticed else "nothing",
        ),
        here=Outcome(
            accepted,
            False,
            f"refused by {len(sites)} of {len(here.integers)} sites"
            + (", and by the decryptor" if "decryptor" in here.refusals else ""),
            "a result of its choice" if accepted else "a round that nobody applies",
        ),
        because="Every site checks the released integers against a linear MAC, whose key neither "
        "the server nor the key holder has. (A site that gives the key away defeats it: then a sum "
        "can be forged, but still not opened.)",
    )

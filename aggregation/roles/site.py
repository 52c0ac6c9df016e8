"""A site's side of one attempt: it alone sees its update, and opens only what everybody fixed.

`runtime.agents.site` goes through one object an attempt: `ready`, `exchange`, `upload`, `open`,
`project` where norms are checked, `verify`, `verdict`. What it is given is verified before anything
changes, and asked twice for the same it gives the same bytes. The secrets are in `site_secrets`,
the tags in `site_mac`, the projections in `site_norms`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.errors import (
    CohortError,
    InputError,
    OpeningError,
    PlanError,
    RecordedError,
    RefusedError,
    ReleaseError,
    ReplayError,
    RoleError,
    SealedError,
    StateError,
)
from aggregation.protocol import checks, messages
from aggregation.protocol.accusation import accuse
from aggregation.protocol.checks import Released
from aggregation.protocol.cohort_rule import MIN_COHORT, admit
from aggregation.protocol.exchange import Exchanged, Part, compose, handed_by, read_handed
from aggregation.protocol.journal import Journal
from aggregation.protocol.membership import check_plan
from aggregation.protocol.messages import Opening, OpeningList, Sigma, UploadManifest
from aggregation.protocol.plan import Member, RoundPlan
from aggregation.protocol.rehearsal import public_integers
from aggregation.protocol.replay import check_federation, pin_federation
from aggregation.protocol.round import FixedCohort
from aggregation.protocol.uploads import Upload
from aggregation.protocol.verdict import Outcome
from aggregation.protocol.witness import Witness, hear, tell
from aggregation.roles import one_cohort
from aggregation.roles.kept_attempt import KeptAttempt, read_kept
from aggregation.roles.site_mac import SiteMac
from aggregation.roles.site_norms import SiteNorms
from aggregation.roles.site_secrets import SiteSecrets
from aggregation.roles.verdicts import give_verdict

_READY: Final = "site/ready"
OPENED: Final = "site/opened"  # key of the round; of the attempt, where sites may vanish


class SiteAttempt:
    """Steps 2, 4, 5, 6 and 9 of one attempt at a round.

    2. Construction verifies the plan and decides whether its cohort would protect this site.
    4. `ready` draws single-use keys, records them, and announces them. Before it the caller stores
       the quantised update and commits its privacy budget: being ready depends on the data.
       In a hybrid plan, or with so many sites that each chooses its neighbours, `exchange`
       follows once the cohort is fixed. In any other it says nothing, and may be left out.
    5. `upload` encrypts and masks the integers for a fixed cohort. Once: a second call returns the
       same bytes, and other integers or another cohort are refused, because two uploads under one
       set of masks would open their difference.
    6. `open` reveals the self-mask's seed and this site's masked tags, once the aggregator's
       signed list, in the collective suite confirmed by the decryptor, shows this very upload
       among those of the whole cohort. It is recorded first; a round is opened once, and no later
       attempt at it is joined. Where sites may vanish, it also hands out its share of every
       other's seed, and a later attempt is joined if it is the same but for its keys
       (`one_cohort`).
       In a rehearsal `reveal` ends the attempt: it hands out every secret of it, and no other
       integers than the public ones were uploaded.
    9. `verify` checks the release against the summed tags. What it returns is, but for sites that
       gave the MAC key away, the sum of what this cohort uploaded. Where norms are checked
       `project` comes before it, and what all sites sent is checked too. `verdict` signs what
       came of it.

    What this object cannot know is the caller's to check on `plan`, before `ready`: that every
    field is what the site agreed to (federation, run, rounds, grid, digests, parameter set, key
    agreement, who has which role), that its budget covers the round, and that integers stored for
    one (run, round) are never offered to another.

    The secrets of an attempt live in this object only. A process that dies between 4 and 6 has
    lost them, and a new attempt is needed. Calls must come from one thread at a time.
    """

    def __init__(
        self,
        identity: Identity,
        plan_message: bytes,
        *,
        coordinator: PublicIdentity,
        pinned: Mapping[str, PublicIdentity],
        journal: Journal,
        min_cohort: int = MIN_COHORT,
        floor: int = 0,
        openings: int = 0,
        custodians: Iterable[str] = (),
        membership: bytes | None = None,
        witness: Witness | None = None,
        goes_on: bool = False,
    ) -> None:
        """Admit a plan.

        Args:
            identity: This site's key pair.
            plan_message: The coordinator's signed plan.
            coordinator: Whose plans this site follows.
            pinned: By name, the parties this site knows: aggregator, decryptor and other sites.
            journal: This site's durable record.
            min_cohort: The fewest pinned sites, itself included, it will be summed with, by weight.
            floor: The fewest by count; what the caller's share of all its pinned sites comes to.
            openings: Where sites may vanish, the fewest openings that a sum with this site may
                open by: `plan.openings_for` all that it pinned and those it takes to collude.
            custodians: Names of the custodians without whom nothing of this site's opens.
            membership: The federation's signed membership list, if it keeps one.
            witness: What this site keeps of others' journals, if it takes part in that.
            goes_on: It joined this attempt before a restart, and goes on by `recall` alone.

        Raises:
            RefusedError: The plan does not hold, or this site takes no part in it.
            ReplayError: This attempt was joined before, or the round was opened.
        """
        if not isinstance(identity, Identity):
            raise RoleError("a site signs with its own Identity")
        self._identity = identity
        self._journal = journal
        self._witness = witness
        self._pinned = dict(pinned)
        self._min_cohort, self._floor = min_cohort, floor
        self._round = checks.read_plan(plan_message, coordinator)
        own = identity.public
        if all(m.identity != own for m in self.plan.members):
            raise PlanError(f"the plan does not invite {own.name} with this key")
        admit(self.plan, self.plan.members, own, self._pinned, min_cohort, floor)
        allowed = self.plan.vanishing
        if allowed is not msgspec.UNSET and allowed.openings < openings:
            raise PlanError(
                f"a sum opens by {allowed.openings} sites, fewer than this site's {openings}"
            )
        if membership is not None:
            check_plan(self.plan, membership, coordinator)
        missing = set(custodians) - {c.name for c in self.plan.custodians}
        if missing and not self._round.is_rehearsal:  # where they would have nothing to guard
            raise PlanError(f"the plan leaves out a custodian: {', '.join(sorted(missing))}")
        self._refuse_replay(goes_on=goes_on)
        self._secrets = SiteSecrets(self._round, own.name)
        self._ready: bytes | None = None
        self._cohort: FixedCohort | None = None
        self._cohort_digest = b""
        self._exchange: bytes | None = None
        self._packed: npt.NDArray[np.int64] | None = None
        self._upload: Upload | None = None
        self._manifest = b""  # its digest
        self._cohort_message = b""  # where it may have to be kept
        self._mac: SiteMac | None = None
        self._norms: SiteNorms | None = None
        self._released: tuple[bytes, Released] | None = None  # as it came, and verified
        self._opening_list: bytes | None = None
        self._opening: bytes | None = None
        self._accusation = b""
        self._reveal = b""

    def __repr__(self) -> str:
        plan = self.plan
        name = self._identity.public.name
        return f"SiteAttempt({name!r}, round={plan.round}, attempt={plan.attempt})"

    @property
    def plan(self) -> RoundPlan:
        """The verified plan of the round."""
        return self._round.plan

    @property
    def cohort(self) -> tuple[Member, ...]:
        """Who takes part, in the plan's order; empty before `upload`."""
        return self._cohort.members if self._cohort is not None else ()

    @property
    def public_integers(self) -> npt.NDArray[np.int32]:
        """The integers that this site uploads in a rehearsal, int32, shape (d,).

        Raises:
            StateError: The plan is of a round, where a site uploads its update.
        """
        if not self._round.is_rehearsal:
            raise StateError("only a rehearsal is of public integers")
        return public_integers(self._round, self._identity.public.name)

    def ready(self) -> bytes:
        """Announce a single-use key (step 4). A second call returns the same message.

        Raises:
            ReplayError: This attempt was joined before, or the round was opened.
        """
        if self._ready is None:
            self._refuse_replay()
            pin_federation(self._journal, self._identity.public, self.plan)
            message = messages.seal(self._identity, self._secrets.draw())
            self._record(_READY, self._round.attempt_key(self._identity.public), message)
            self._ready = message
        return self._ready

    def exchange(self, cohort_message: bytes) -> bytes:
        """Send key material to neighbours (step 4). A second call returns the same message.

        Whoever carries it hands each site, for its `upload`, the part for it (`exchange.hand_out`).

        Raises:
            StateError: `ready` comes first, or another cohort came before.
            RefusedError: The cohort does not hold, or would not protect this site.
        """
        self._refuse_revealed()
        if self._exchange is None or messages.digest(cohort_message) != self._cohort_digest:
            cohort = self._fix(cohort_message)
            parts, head, to = {}, b"", self._secrets.choose(cohort)
            # Read before keys are drawn: where that fails it is asked again, and draws once.
            if self._witness is not None:
                head, heads = tell(cohort, self._identity, self._journal, self._witness, to)
                parts = {place: Part(heads=told) for place, told in heads.items()}
            drawn = self._secrets.encapsulate(cohort, parts)
            self._exchange = compose(
                self._identity, cohort, drawn.parts, chosen=drawn.chosen, head=head, key=drawn.key
            )
        return self._exchange

    def upload(
        self,
        cohort_message: bytes,
        integers: npt.NDArray[np.int32],
        exchanges: Iterable[bytes] = (),
    ) -> Upload:
        """Encrypt and mask the update for a fixed cohort (step 5).

        Args:
            cohort_message: The coordinator's cohort, with this site's ready message in it.
            integers: The quantised update, shape (d,), int32, |v| <= 2**(bits - 1) - 1.
            exchanges: In a hybrid plan, or where sites choose neighbours or may vanish, what this
                site is handed of the cohort's exchange messages.

        Returns:
            The signed manifest and its chunks; the same bytes on every call.

        Raises:
            StateError: `ready` comes first; or other integers, or another cohort than before.
            InputError: The integers are not what the plan asks for.
            SealedError: A share that another site dealt does not hold. This site uploads nothing
                in this attempt any more; what it says instead is in the error.
            ReplayError: This round was opened, with another cohort or other integers.
            JournalError: This site's journal lacks what another site of the cohort has seen of it.
            RefusedError: The cohort does not hold, or would not protect this site.
        """
        if self._ready is None:
            raise StateError("announce a key with ready() first")
        if not isinstance(integers, np.ndarray) or integers.dtype != np.int32:
            raise InputError("quantised integers must be a NumPy array of int32")
        if self._round.is_rehearsal and not np.array_equal(integers, self.public_integers):
            raise InputError("a rehearsal takes its public integers, and no others")
        self._refuse_revealed()
        packed = self._round.packing.pack(integers)
        if self._upload is not None:
            if not self._is_of(cohort_message) or not self._is_uploaded(packed):
                raise StateError(
                    "this attempt uploaded already, for another cohort or other integers"
                )
            return self._upload
        cohort = self._fix(cohort_message)
        one_cohort.check_integers(self._journal, self._identity.public, self._round, packed)
        if cohort.exchanges:
            self.exchange(cohort_message)
            given = self._read_handed(cohort, exchanges)
            if self._witness is not None:
                hear(cohort, self._identity.public, self._journal, self._witness, given)
            self._take_shares(cohort, given)
            self._secrets.take(cohort, given)
        chunks, digests, box = self._secrets.encrypt(cohort, packed)
        if box is not None:
            sealed = messages.seal(self._identity, Sigma(cohort.transcript, box))
            chunks.end_with(sealed)
            digests.append(messages.digest(sealed))
        tags: bytes | msgspec.UnsetType = msgspec.UNSET
        self._mac = SiteMac(
            cohort,
            self._identity.public.name,
            self._secrets.key,
            mac_key=b"" if self._secrets.shares is None else self._secrets.shares.mac_key,
        )
        if cohort.shares:
            tags = self._mac.tag(packed, self._secrets)
        manifest = UploadManifest(
            transcript=cohort.transcript,
            chunk_digests=b"".join(digests),
            commitment=self._secrets.commitment(cohort),
            mac_boxes=self._mac.boxes,
            tags=tags,
        )
        self._upload = Upload(messages.seal(self._identity, manifest), chunks)
        self._manifest = messages.digest(self._upload.manifest)
        self._packed = packed  # for the tags, and to be held to
        if self._round.checks_norms:
            self._norms = SiteNorms(cohort, integers.copy())
        self._secrets.spend_key()
        return self._upload

    def open(self, opening_list: bytes) -> bytes:
        """Reveal the self-mask's seed (step 6). A second call returns the same message.

        Args:
            opening_list: The aggregator's list; in the collective suite the decryptor's
                confirmation of it.

        Raises:
            StateError: Nothing was uploaded, or another list was opened.
            OpeningError: The list does not show this site's upload and all others.
            SealedError: The first site's box with the MAC key does not open. This site opens
                nothing in this attempt any more; what it says instead is in the error.
            ReplayError: This round was opened in another attempt.
        """
        if self._cohort is None or not self._manifest:
            raise StateError("there is no upload to open")
        self._refuse_revealed()
        cohort = self._cohort
        listed, digest = checks.read_opening_list(cohort, opening_list)
        if self._opening is not None or self._packed is None:
            if self._opening is None or digest != self._opening_list:
                raise StateError("this attempt opened for another list")
            return self._opening
        own = cohort.position(self._identity.public.name)
        if listed.manifests[own] != self._manifest:
            raise OpeningError("the list does not show this site's upload")
        if self._secrets.shares is None:
            if self._mac is None:
                raise StateError("there is no upload to open")
            self._take_mac_key(cohort, self._mac, listed)
            tags = self._mac.tag(self._packed, self._secrets)
            body = Opening(cohort.transcript, digest, self._secrets.seed, tags)
            once = self._round.round_key(self._identity.public)
        else:
            shares = b"".join(self._secrets.shares.held)
            body = Opening(cohort.transcript, digest, self._secrets.seed, shares=shares)
            one_cohort.bind(self._journal, self._identity.public, cohort, self._packed)
            once = self._round.attempt_key(self._identity.public)
        opening = messages.seal(self._identity, body)
        self._record(OPENED, once, opening)
        self._opening_list, self._opening = digest, opening
        self._packed = None
        self._secrets.forget()
        return opening

    def keep(self) -> bytes:
        """Returns what opens this attempt after a restart; empty where every site must open.

        To be stored sealed before the upload leaves this site (`kept_attempt`).

        Raises:
            StateError: Nothing was uploaded, or it was opened.
        """
        if self._secrets.shares is None or self._round.is_rehearsal:
            return b""
        if self._packed is None:
            raise StateError("there is nothing to keep before an upload, or after its opening")
        shares = b"".join(self._secrets.shares.held)
        return msgspec.msgpack.encode(
            KeptAttempt(
                self._round.digest, self._cohort_message, self._manifest, self._secrets.seed, shares
            )
        )

    def recall(self, kept: bytes, integers: npt.NDArray[np.int32]) -> None:
        """Go on after a restart where `keep` was called: to open, which is all that it can.

        Args:
            kept: What `keep` gave.
            integers: What was uploaded.

        Raises:
            StateError: It is of another attempt, or this one did not begin with `goes_on`.
            RefusedError: The cohort does not hold, or this round was opened otherwise.
        """
        shares, own = self._secrets.shares, self._identity.public
        if shares is None or self._ready is not None:
            raise StateError("only an attempt in which sites may vanish goes on after a restart")
        body = read_kept(kept, self._round.digest)
        cohort = checks.read_cohort(self._round, body.cohort)
        admit(self.plan, cohort.members, own, self._pinned, self._min_cohort, self._floor)
        packed = self._round.packing.pack(integers)
        one_cohort.check_cohort(self._journal, own, cohort)
        one_cohort.check_integers(self._journal, own, self._round, packed)
        self._cohort, self._cohort_digest = cohort, messages.digest(body.cohort)
        self._manifest, self._packed = body.manifest, packed
        self._secrets.recall(body)

    def _read_handed(self, cohort: FixedCohort, exchanges: Iterable[bytes]) -> list[Exchanged]:
        """Verify what this site was handed, one message a sender."""
        own = cohort.position(self._identity.public.name)
        found: dict[int, Exchanged] = {}
        # Without heads and shares, and where nobody chooses, half of them have nothing for it.
        is_for_all = self._witness is not None or cohort.shares or cohort.chooses
        for message in exchanges:
            claimed = cohort.position(handed_by(message))
            if not is_for_all and own not in cohort.initiates(claimed):
                continue
            sent = read_handed(cohort, own, message)
            if sent.sender == own or sent.sender in found:
                raise CohortError(f"a second exchange message of {cohort.names[sent.sender]}")
            found[sent.sender] = sent
        return list(found.values())

    def _take_shares(self, cohort: FixedCohort, exchanges: Iterable[Exchanged]) -> None:
        """Take what others dealt, where sites may vanish."""
        shares = self._secrets.shares
        if shares is not None:
            with self._proving(cohort, lambda: shares.accused, shares.reveal):
                shares.take(cohort, exchanges)

    def _take_mac_key(self, cohort: FixedCohort, keyed: SiteMac, listed: OpeningList) -> None:
        # With X25519 alone, the key that proves it would take the masks of others away.
        reveal = keyed.reveal if self._round.hybrid else None
        with self._proving(cohort, lambda: cohort.names[0], reveal):
            keyed.open(listed)

    @contextmanager
    def _proving(
        self, cohort: FixedCohort, accused: Callable[[], str], reveal: Callable[[], bytes] | None
    ) -> Iterator[None]:
        """Of what does not open inside, reveal the key that proves it; and say nothing else."""
        try:
            if self._accusation:
                raise SealedError("this site has revealed its key, and gives no other word")
            yield
        except SealedError as error:
            if not self._accusation and reveal is not None:
                self._accusation = accuse(self._identity, cohort, accused(), reveal())
                self._secrets.forget()
            error.accusation = self._accusation
            raise

    def project(self, release: bytes) -> bytes:
        """Send projections of what was uploaded, so that norms can be checked (step 9).

        Args:
            release: The decryptor's message; it has to verify, and no other of this round is
                answered.

        Raises:
            StateError: This site opened nothing, or norms are not checked in this plan.
            ReplayError: Projections were sent for another release of this round.
            RefusedError: It is not the release of what this site opened, or not the sum.
        """
        released = self._verified(release)
        if self._norms is None:
            raise StateError("norms are not checked in this plan")
        return self._norms.project(self._identity, self._journal, released.mark)

    def verify(self, release: bytes, projections: Iterable[bytes] = ()) -> npt.NDArray[np.int64]:
        """Check a release (step 9).

        Args:
            release: The decryptor's message.
            projections: Where norms are checked, what the sites sent.

        Returns:
            The sum of the cohort's integers, shape (d,), int64.

        Raises:
            StateError: This site opened nothing; or norms are checked, and it sent no projections.
            NormError: An update in it is larger than an honest one, or may be.
            RefusedError: It is not the release of what this site opened, or not the sum.
        """
        released = self._verified(release)
        self._released = None  # 12 bytes a value, which nothing asks for again
        if self._norms is not None:
            self._norms.check(released, projections)
        return released.integers

    def _verified(self, release: bytes) -> Released:
        if self._cohort is None or self._opening_list is None or self._mac is None:
            raise StateError("this site has opened nothing that could be released")
        if self._released is not None and self._released[0] == release:
            return self._released[1]
        released = checks.read_release(self._cohort, release, self._opening_list)
        if not self._mac.matches(released.integers, released.tags):
            raise ReleaseError("the release is not the sum of what the cohort uploaded")
        if self._norms is not None:  # it is asked for twice
            self._released = release, released
        return released

    def reveal(self, release: bytes = b"") -> bytes:
        """Hand out every secret of a rehearsal. A second call returns the same message.

        Args:
            release: The decryptor's, if there was one; then what is said includes whether it
                verifies here.

        Raises:
            StateError: The plan is of a round, whose secrets nobody is told; or there is no cohort.
        """
        if self._cohort is None:
            raise StateError("there is no cohort whose rehearsal this could be")
        if not self._reveal:
            verified: bool | msgspec.UnsetType = msgspec.UNSET
            if release:
                try:
                    self._verified(release)
                    verified = True
                except StateError:
                    pass  # it had not opened, and can say nothing of the sum
                except RefusedError:
                    verified = False
            body = self._secrets.reveal(self._cohort, verified=verified)
            self._reveal = messages.seal(self._identity, body)
        return self._reveal

    def _refuse_revealed(self) -> None:
        if self._reveal:
            raise StateError("this site has revealed its keys, and gives no other word")

    def verdict(self, outcome: Outcome, after: str = "") -> bytes:
        """Sign what became of the release, recorded first (step 9). The same again is the same.

        Args:
            outcome: Whether it verified.
            after: `sha256:` of the adapter that the sum gives, if it did.

        Raises:
            StateError: This site opened nothing, or said something else of this round; or it is a
                rehearsal, which moves no adapter.
        """
        if self._cohort is None or self._opening_list is None or self._round.is_rehearsal:
            raise StateError("this site has opened nothing that could be released")
        return give_verdict(self._identity, self._journal, self._cohort, outcome, after)

    def _fix(self, message: bytes) -> FixedCohort:
        """Verify the cohort; the first that holds is the only one of this attempt."""
        if self._ready is None:
            raise StateError("announce a key with ready() first")
        if self._cohort is not None:
            if not self._is_of(message):
                raise StateError("this attempt has another cohort")
            return self._cohort
        cohort = checks.read_cohort(self._round, message)
        own = self._identity.public
        admit(self.plan, cohort.members, own, self._pinned, self._min_cohort, self._floor)
        pairs = zip(cohort.members, cohort.readies, strict=True)
        announced = [r for member, r in pairs if member.identity == own]
        if announced != [self._secrets.announced]:
            raise CohortError("the cohort does not carry this site's ready message")
        one_cohort.check_cohort(self._journal, own, cohort)
        self._cohort, self._cohort_digest = cohort, messages.digest(message)
        self._cohort_message = message if cohort.shares else b""
        return cohort

    def _is_of(self, cohort_message: bytes) -> bool:
        """Whether this is the cohort that was fixed."""
        return (
            isinstance(cohort_message, bytes)
            and messages.digest(cohort_message) == self._cohort_digest
        )

    def _is_uploaded(self, packed: npt.NDArray[np.int64]) -> bool:
        """Whether these are the integers that were uploaded."""
        if self._packed is not None:
            return np.array_equal(packed, self._packed)
        return self._mac is not None and self._mac.tagged(packed)  # opened, and forgotten here

    def _refuse_replay(self, *, goes_on: bool = False) -> None:
        own = self._identity.public
        check_federation(self._journal, own, self.plan)
        one_cohort.check_plan(self._journal, own, self._round)
        if self._journal.lookup(OPENED, self._round.round_key(own)) is not None:
            raise ReplayError("this site opened this round already")
        joined = self._journal.lookup(_READY, self._round.attempt_key(own)) is not None
        if joined and not goes_on:
            raise ReplayError("this site joined this attempt already; ask for a new one")
        if goes_on and not joined:
            raise StateError("this site did not join this attempt before")

    def _record(self, kind: str, key: str, message: bytes) -> None:
        try:
            self._journal.record(kind, key, message)
        except RecordedError:
            raise ReplayError(f"{kind} happened already for this round or attempt") from None

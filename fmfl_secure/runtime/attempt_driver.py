"""One attempt at a round, step by step: who is asked for what, and what is made of the answers.

The steps are those of `docs/protocol.md`, and every one may be entered again: what it waits for
may have come before a restart.

`runtime.round_driver` calls `drive` for an attempt at a round: readies, exchange, uploads,
confirmation, openings, release, projections, verdicts, apply. `runtime.rehearsals` calls
`rehearse`, which collects every key instead of applying.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

from aggregation import NormError
from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.parties.workspace import DECRYPTOR
from fmfl_secure.run.record import RehearsalRecord, RoundRecord
from fmfl_secure.runtime.attempt_state import ServerAttempt
from fmfl_secure.runtime.custodian_requests import CustodianRequests
from fmfl_secure.runtime.task_board import (
    APPROVAL,
    HISTORY,
    Assignment,
    Document,
    Step,
    TaskBoard,
)
from fmfl_secure.runtime.waiting import AttemptOver, RoundSpent, TooFewReady, Waiter
from fmfl_secure.vectors.adapter import adapter_digest

_LOG = logging.getLogger("fmfl_secure.runtime.attempt_driver")


class AttemptDriver:
    """Carries attempts.

    Args:
        coordinator: Plans and applies.
        board: Where parties look for what to do.
        waiting: Waits for them.
        smallest_cohort: The fewest sites whose sum is opened.
        evaluate: From a round to the metrics of the adapter as it stands after it.
        rehearsed: From a round to what its rehearsals found.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        board: TaskBoard,
        waiting: Waiter,
        smallest_cohort: int,
        evaluate: Callable[[int], dict[str, float]],
        rehearsed: Callable[[int], tuple[RehearsalRecord, ...]] = lambda _: (),
    ) -> None:
        self._coordinator = coordinator
        self._board = board
        self._waiting = waiting
        self._custodians = CustodianRequests(board, waiting)
        self._smallest_cohort = smallest_cohort
        self._evaluate = evaluate
        self._rehearsed = rehearsed
        self.phase = ""

    def drive(self, attempt: ServerAttempt, refusals: Callable[[], dict[str, str]]) -> RoundRecord:
        """Carry an attempt to its release and apply that.

        Args:
            attempt: The attempt, with what had come before a restart.
            refusals: Codes by site that took no part.

        Raises:
            AttemptOver: Somebody it needs did not come.
            RunError: A custodian refuses.
        """
        if not attempt.is_recalled:
            self._collect_ready(attempt)
            self._exchange(attempt)
            self._collect_uploads(attempt)
            self._confirm(attempt)
            self._collect_openings(attempt)
        self._release(attempt)
        if attempt.round.checks_norms and not attempt.is_recalled:
            self._project(attempt)
        following = self._verify(attempt)
        self._enter("apply", attempt)
        return self._apply(attempt, following, refusals)

    def rehearse(self, attempt: ServerAttempt) -> AttemptOver | None:
        """Go through the same steps on public integers, as far as they go; then all keys come.

        Args:
            attempt: A rehearsal.

        Returns:
            What ended it, if something did before its release.
        """
        ended = None
        try:
            self._collect_ready(attempt)
            self._exchange(attempt)
            self._collect_uploads(attempt)
            self._confirm(attempt)
            self._collect_openings(attempt)
            self._release(attempt)
            if attempt.round.checks_norms:
                self._project(attempt)
        except AttemptOver as over:
            ended = over
        if attempt.cohort is not None:
            self._collect_reveals(attempt)
        self._board.assign((*attempt.invited, DECRYPTOR), Assignment(run=attempt.plan.run))
        return ended

    def _collect_reveals(self, attempt: ServerAttempt) -> None:
        self._enter("reveal", attempt)
        documents = {"plan": attempt.message, "cohort": _bytes(attempt)}
        if attempt.release:
            documents["release"] = attempt.release
        parties = (*attempt.sites, DECRYPTOR)
        self._assign(attempt, parties, Step.REVEAL, documents)
        self._waiting.missing(
            attempt,
            parties,
            lambda: attempt.reveals,
            self._waiting.limits.exchange_s,
            forgiving=True,
        )

    def _collect_ready(self, attempt: ServerAttempt) -> None:
        if attempt.cohort is not None:
            return
        self._enter("custodians", attempt)
        # Before any site charges anything: whom it takes to open a sum has to have agreed to.
        self._custodians.collect_keys(attempt)
        self._enter("announce", attempt)
        self._assign(attempt, [DECRYPTOR], Step.ANNOUNCE, {"plan": attempt.message})
        self._waiting.require(
            attempt, [DECRYPTOR], lambda: _present(attempt.announcement), "announce"
        )
        self._enter("train", attempt)
        bound: tuple[str, ...] = ()
        if not attempt.round.is_rehearsal:
            # What opened once in this round, and too few opened, can open again with the same.
            bound = self._coordinator.opened_before(attempt.plan.round).cohort
        asked, least = bound or attempt.invited, max(self._smallest_cohort, len(bound))
        if attempt.round.is_rehearsal:
            self._assign(attempt, asked, Step.REHEARSE, {"plan": attempt.message})
        else:
            self._ask_ready(attempt, asked)
        waited = self._waiting.limits.ready_s
        missing = self._waiting.missing(
            attempt, asked, lambda: attempt.readies, waited, needed=least
        )
        ready = {name: attempt.readies[name] for name in asked if name in attempt.readies}
        if len(ready) < least:
            raise TooFewReady(
                f"{len(ready)} sites are ready, fewer than the {least} it takes; "
                f"missing: {', '.join(missing)}"
            )
        if attempt.announcement is None:
            raise AttemptOver("the decryptor did not announce")
        if attempt.round.is_rehearsal:
            cohort = self._coordinator.rehearsal_cohort(
                attempt.message, attempt.announcement, ready.values()
            )
        else:
            cohort = self._coordinator.fix_cohort(
                attempt.plan,
                attempt.message,
                attempt.announcement,
                ready.values(),
                [attempt.custodian_readies[name] for name in attempt.custodians],
            )
        attempt.fix_cohort(cohort)
        late = set(attempt.invited) - set(attempt.sites)
        self._board.assign(late, Assignment(run=self._coordinator.run))

    def _ask_ready(self, attempt: ServerAttempt, asked: Sequence[str]) -> None:
        """Sites that were away are given what others signed meanwhile.

        In a second attempt all are: one may have lost what it had itself signed.
        """
        plan = Document([attempt.message])
        documents = {"plan": plan, "adapter": Document([self._coordinator.adapter])}
        history, knowing = self._coordinator.history()
        if attempt.plan.attempt > 1:
            knowing = frozenset()
        up_to_date = [name for name in asked if name in knowing]
        away = [name for name in asked if name not in knowing]
        self._hand(attempt, up_to_date, Step.READY, documents)
        if history:
            documents = {**documents, HISTORY: Document([history])}
        self._hand(attempt, away, Step.READY, documents)

    def _exchange(self, attempt: ServerAttempt) -> None:
        self._enter("exchange", attempt)
        self._assign(attempt, attempt.sites, Step.EXCHANGE, {"cohort": _bytes(attempt)})
        self._waiting.require(attempt, attempt.sites, lambda: attempt.exchanges, "exchange")

    def _collect_uploads(self, attempt: ServerAttempt) -> None:
        self._enter("upload", attempt)
        handed = attempt.handed()
        for name in attempt.sites:
            self._hand(
                attempt,
                [name],
                Step.UPLOAD,
                {"exchanges": Document(handed[name])},
                sizes=[len(message) for message in handed[name]],
            )
        self._waiting.require(
            attempt,
            attempt.sites,
            lambda: set(attempt.sites) - set(attempt.missing_uploads),
            "upload",
        )
        store = self._coordinator.store
        if attempt.upload_bytes and not attempt.round.is_rehearsal:
            store.move(lambda state: state.uploaded(attempt.upload_bytes))

    def _confirm(self, attempt: ServerAttempt) -> None:
        self._enter("confirm", attempt)
        secrets = attempt.sealed_secrets()
        self._hand(
            attempt,
            [DECRYPTOR],
            Step.CONFIRM,
            {
                "plan": Document([attempt.message]),
                "cohort": Document([_bytes(attempt)]),
                "list": Document([attempt.opening_list()]),
                "secrets": Document(secrets),
            },
            sizes=[len(secret) for secret in secrets],
        )
        self._waiting.require(
            attempt, [DECRYPTOR], lambda: _present(attempt.confirmation), "confirm"
        )
        self._custodians.collect_approvals(attempt)
        if attempt.round.is_rehearsal:
            return  # nothing is spent by what opens in it
        # Recorded before any site hears of it.
        self._coordinator.store.list_openings(
            attempt.plan.round, attempt.plan.attempt, attempt.confirmation or b""
        )

    def _collect_openings(self, attempt: ServerAttempt) -> None:
        self._enter("open", attempt)
        documents = {"plan": attempt.message, "list": attempt.confirmation or b""}
        self._assign(attempt, attempt.sites, Step.OPEN, documents)
        opened = lambda: set(attempt.sites) - set(attempt.unopened)  # noqa: E731
        if not attempt.round.shares:
            self._waiting.require(attempt, attempt.sites, opened, "open")
            return
        missing = self._waiting.missing(
            attempt,
            attempt.sites,
            opened,
            self._waiting.limits.open_s,
            needed=attempt.needed_openings,
        )
        if not attempt.opens:
            raise _over(f"{', '.join(missing)} did not open", missing)
        false = attempt.false_dealers
        self._waiting.convict(attempt, false)
        lost = [name for name in missing if name in false]
        if lost:
            text = f"{', '.join(lost)} vanished, and dealt shares that do not open what it uploaded"
            raise _over(text, lost)
        if missing:
            _LOG.warning(
                "%s vanished after their upload: the round goes on with it",
                ", ".join(missing),
                extra={"run": attempt.plan.run, "round": attempt.place[0]},
            )

    def _release(self, attempt: ServerAttempt) -> None:
        if attempt.release is not None:
            return
        self._enter("release", attempt)
        # Of one that is recalled there is no sum any more: only a recorded release can come.
        total = None if attempt.is_recalled else attempt.total()
        chunks = () if total is None else total.chunks
        self._hand(
            attempt,
            [DECRYPTOR],
            Step.RELEASE,
            {
                "plan": Document([attempt.message]),
                "cohort": Document([_bytes(attempt)]),
                "list": Document([attempt.confirmation or b""]),
                "sum": Document([b"" if total is None else total.manifest]),
                "chunks": Document(chunks),
                **{
                    f"{APPROVAL}{name}": Document([approval])
                    for name, approval in attempt.approvals.items()
                },
            },
            sizes=[len(chunk) for chunk in chunks],
        )
        # A decryptor that is away may have recorded its release: it is waited for to the end.
        self._waiting.require(
            attempt, [DECRYPTOR], lambda: _present(attempt.release), "release", patient=True
        )

    def _project(self, attempt: ServerAttempt) -> None:
        """Have sites show that their updates are no larger than honest ones.

        Whose is, is named by its own word, and who is silent is bounded with what the sum has.
        """
        self._enter("project", attempt)
        self._board.assign([DECRYPTOR], Assignment(run=attempt.plan.run))
        self._assign(attempt, attempt.sites, Step.PROJECT, {"release": attempt.release or b""})
        missing = self._waiting.missing(
            attempt, attempt.sites, lambda: attempt.projections, self._waiting.limits.verify_s
        )
        try:
            attempt.check_norms()
        except NormError as error:
            # Of those who said why they cannot, the fault is not known here.
            told = self._waiting.failed(attempt)
            spent = RoundSpent(str(error))
            spent.missing = tuple(name for name in missing if name not in told)
            raise spent from error

    def _verify(self, attempt: ServerAttempt) -> bytes:
        """Have sites verify the release; returns the adapter that it gives.

        Only sites can check the MAC. What too few of them have checked is not applied, for one
        that was away could never come back: it takes that many others' word. Where it is not
        applied the round is lost at once, for the decryptor releases no other sum of it: attempts
        in vain would use up those that a site is left out of.
        """
        self._enter("verify", attempt)
        self._board.assign([DECRYPTOR], Assignment(run=attempt.plan.run))
        documents = {
            "plan": attempt.message,
            "cohort": _bytes(attempt),
            "release": attempt.release or b"",
        }
        parts = {name: Document([data]) for name, data in documents.items()}
        projections = list(attempt.projections.values())
        if projections:
            parts["projections"] = Document(projections)
        self._hand(
            attempt,
            attempt.sites,
            Step.VERIFY,
            parts,
            sizes=[len(message) for message in projections],
        )
        following = self._coordinator.following(attempt.plan, attempt.released_sum(), attempt.sites)
        self._waiting.missing(
            attempt, attempt.sites, lambda: attempt.verdicts, self._waiting.limits.verify_s
        )
        verified, needed = attempt.verified(adapter_digest(following)), self._coordinator.witnesses
        if attempt.refused:
            over = RoundSpent(f"the sum does not verify at {', '.join(attempt.refused)}")
            if len(verified) >= max(needed, len(attempt.refused) + 1):
                over.outvoted = attempt.refused
            raise over
        if len(verified) < min(needed, len(attempt.sites)):
            raise RoundSpent(
                f"{len(verified)} sites could verify the sum, fewer than the {needed} that it takes"
            )
        return following

    def _apply(
        self, attempt: ServerAttempt, following: bytes, refusals: Callable[[], dict[str, str]]
    ) -> RoundRecord:
        self._coordinator.apply(following)
        return self._coordinator.finish_round(
            attempt.plan,
            attempt.release or b"",
            sites=attempt.sites,
            refusals=refusals(),
            metrics=self._evaluate(attempt.plan.round),
            verdicts=attempt.verdict_messages,
            verified=attempt.verified(adapter_digest(following)),
            total=attempt.released_sum(),
            vanished=attempt.vanished,
            rehearsals=self._rehearsed(attempt.plan.round),
        )

    def _enter(self, phase: str, attempt: ServerAttempt) -> None:
        self.phase = f"rehearsal: {phase}" if attempt.round.is_rehearsal else phase
        number, which = attempt.place
        _LOG.info(
            self.phase,
            extra={
                "run": attempt.plan.run,
                "round": number,
                "attempt": which,
                "phase": self.phase,
                "sites": len(attempt.sites or attempt.invited),
            },
        )

    def _assign(
        self,
        attempt: ServerAttempt,
        parties: Collection[str],
        step: Step,
        documents: dict[str, bytes],
    ) -> None:
        parts = {name: Document([data]) for name, data in documents.items()}
        self._hand(attempt, parties, step, parts)

    def _hand(
        self,
        attempt: ServerAttempt,
        parties: Collection[str],
        step: Step,
        documents: dict[str, Document],
        *,
        sizes: Sequence[int] = (),
    ) -> None:
        number, which = attempt.place
        self._board.assign(
            parties,
            Assignment(
                step=step,
                run=attempt.plan.run,
                round=number,
                attempt=which,
                documents=documents,
                sizes=sizes,
            ),
        )


def _over(text: str, missing: Sequence[str]) -> AttemptOver:
    over = AttemptOver(text)
    over.missing = tuple(missing)
    return over


def _present(message: bytes | None) -> tuple[str, ...]:
    return () if message is None else (DECRYPTOR,)


def _bytes(attempt: ServerAttempt) -> bytes:
    return attempt.cohort_message or b""

"""All custodians of a run: each is asked, and one that refuses ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aggregation import ReplayError, RoundPlan
from fmfl_secure.errors import KNOWN_ERRORS, RunError
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.workspace import Workspace
from fmfl_secure.run.observer import Observer
from fmfl_secure.settings.federation import FederationConfig

Saw = Callable[..., None]  # who, what kind of message, the message, its plan


class Custodians:
    """Carries the protocol's bytes to the custodians and back; empty where there are none.

    They are asked for keys before any site trains, so that a refusal spends no budget, and for
    their word before any site opens, so that a refusal opens nothing.

    Args:
        workspace: The federation's folder.
        config: Its settings.
        saw: Told what each custodian gets to see.
        observer: Told who refuses.

    Raises:
        FmflError, AggregationError: A custodian's folder is wrong.
    """

    def __init__(
        self, workspace: Workspace, config: FederationConfig, *, saw: Saw, observer: Observer
    ) -> None:
        names = config.aggregation.custodians
        self._custodians = [Custodian(workspace.custodian(name), name, config) for name in names]
        self._saw = saw
        self._observer = observer

    def ready(self, plan: RoundPlan, message: bytes) -> list[bytes]:
        """Their single-use keys for an attempt (step 4), in the plan's order.

        Raises:
            ReplayError: One gave its word for this round in an attempt that was interrupted: no
                other attempt at it can open.
            RunError: One refuses.
        """
        readies = []
        for custodian in self._custodians:
            self._saw(f"custodian {custodian.name}", "plan", message, plan)
            try:
                ready = custodian.ready(message)
            except ReplayError:
                raise
            except KNOWN_ERRORS as error:
                raise self._refusal(custodian, plan, error) from error
            self._saw("coordinator", "custodian-ready", ready, plan, sender=custodian.name)
            readies.append(ready)
        return readies

    def approve(
        self, plan: RoundPlan, cohort: bytes, opening_list: bytes, exchanges: Sequence[bytes]
    ) -> list[bytes]:
        """Their words for one list of uploads (step 6).

        Raises:
            RunError: One refuses.
        """
        approvals = []
        for custodian in self._custodians:
            self._saw(f"custodian {custodian.name}", "cohort", cohort, plan)
            self._saw(f"custodian {custodian.name}", "opening-list", opening_list, plan)
            try:
                approval = custodian.approve(cohort, opening_list, exchanges)
            except KNOWN_ERRORS as error:
                raise self._refusal(custodian, plan, error) from error
            self._saw("decryptor", "approval", approval, plan, sender=custodian.name)
            approvals.append(approval)
        return approvals

    def _refusal(self, custodian: Custodian, plan: RoundPlan, error: Exception) -> RunError:
        code = str(getattr(error, "code", "failed"))
        self._observer.site_refused(f"custodian {custodian.name}", code, str(error))
        return RunError(
            f"the custodian {custodian.name} does not let round {plan.round} open",
            hint="All custodians must agree before a sum opens: ask this one why.",
        )

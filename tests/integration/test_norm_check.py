"""Whole runs in which norms are checked: who sends too much is named and left out.

Real parties over each transport, as in the contract. `tests/attacks/test_hostile_updates.py` has
what a hostile site can try within a round.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from contract_worlds import world_of
from support import initialise, settings, write_rows

from aggregation import Identity, Journal, SiteAttempt
from aggregation.ckks.packing import Packing
from aggregation.protocol import Projections, unseal
from aggregation.protocol.messages import seal
from aggregation.roles.site_norms import SiteNorms
from fmfl_secure.errors import Rejected
from fmfl_secure.runtime.agents.site import SiteAgent

pytestmark = pytest.mark.usefixtures("quick_worlds")
SLOW = pytest.mark.slow
FOUR = tuple(f"site-{n}" for n in range(1, 5))
HONEST, BAD = FOUR[:3], FOUR[3]

Template = Callable[[bool], Path]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Template:
    folder = tmp_path_factory.mktemp("norms")

    @cache
    def made(checks: bool) -> Path:
        place = folder / str(checks)
        for name in FOUR:
            write_rows(place / f"data/{name}.csv", 40, seed=int(name[-1]))
        text = settings(
            tiny_model,
            sites=4,
            rounds=2,
            steps=1,
            evaluation=False,
            federation="norm_check = true" if checks else "",
            adapter='kind = "lora"\nrank = 16\ntarget_modules = ["query", "value"]',
            plain=True,
        )
        # Gradients are far inside their range, so that there is room for an attack in the sum's.
        text = text.replace("[training]", '[training]\nsteps_at = "server"')
        (place / "federation.toml").write_text(text)
        initialise(place, epsilon=None, delta=None, simulated=True)
        for site in place.glob("sites/*/site.toml"):
            allow(site)
        return place

    return made


def allow(site: Path) -> None:
    text = site.read_text()
    assert "[policy]" in text
    site.write_text(text.replace("[policy]", '[policy]\nnorm_check = "accept"', 1))


class _Loose(Packing):
    """Packs whatever it is given."""

    def _check_limit(self, values: np.ndarray) -> None:
        pass


def uploads_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last site uploads twice and a half the range in the first round, and signs so."""
    upload = SiteAttempt.upload

    def uploading(self: SiteAttempt, cohort, integers, exchanges=()):
        if self._identity.public.name == BAD and self.plan.round == 1:
            packing = self._round.packing
            loose = _Loose(packing.size, packing.degree, packing.encoding)
            self._round = dataclasses.replace(self._round, packing=loose)
            integers = np.full_like(integers, 5 * packing.encoding.limit // 2)
        return upload(self, cohort, integers, exchanges)

    monkeypatch.setattr(SiteAttempt, "upload", uploading)
    project = SiteAgent._project

    def stubborn(self: SiteAgent, work) -> None:
        """What it sends is refused, and it stays where it is."""
        with suppress(Rejected):
            project(self, work)

    monkeypatch.setattr(SiteAgent, "_project", stubborn)


def sends_false_projections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last site's are short enough, and not of what it uploaded; in rehearsals too."""
    project = SiteNorms.project

    def projecting(self: SiteNorms, identity: Identity, journal: Journal, release: bytes) -> bytes:
        message = project(self, identity, journal, release)
        if identity.public.name != BAD:
            return message
        body = unseal(message, Projections, identity.public, len(message))
        values = (-np.frombuffer(body.values, dtype="<i8")).tobytes()
        return seal(identity, msgspec.structs.replace(body, values=values))

    monkeypatch.setattr(SiteNorms, "project", projecting)


def test_false_projections_lose_rounds_until_a_rehearsal_names_their_sender(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends_false_projections(monkeypatch)
    without, with_them = tmp_path / "without", tmp_path / "with"
    for record in world_of("local", template(True), without).finish():
        assert (record.status, record.refusals) == ("lost", {})
    made = shutil.copytree(template(True), with_them / "made")
    path = made / "federation.toml"
    text = path.read_text().replace("[federation]", '[federation]\nrehearsals = "after-failure"', 1)
    path.write_text(text)
    first, second = world_of("local", made, with_them).finish()
    assert first.status == "lost"
    assert first.rehearsals[0].named == {BAD: "projections"}
    assert (second.status, second.cohort) == ("released", HONEST)
    assert second.refusals == {BAD: "attempt.rehearsed"}


def test_an_honest_run_goes_as_without(transport: str, template: Template, tmp_path: Path) -> None:
    world = world_of(transport, template(True), tmp_path)
    first, second = world.finish()
    for record in (first, second):
        assert (record.status, record.attempts, record.cohort) == ("released", 1, FOUR)
        assert record.refusals == {}
    for name in FOUR:
        assert world.said(name, world.observer.run, 2).after == second.adapter_digest


def test_a_site_that_sends_too_much_is_named_and_left_out(
    transport: str, template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads_too_much(monkeypatch)
    world = world_of(transport, template(True), tmp_path)
    first, second = world.finish()
    assert first.status == "lost"  # its sum was opened
    assert first.refusals[BAD] == "attempt.invalid"
    assert set(first.refusals) == {BAD}
    assert (second.status, second.cohort) == ("released", HONEST)
    assert second.refusals == {BAD: "attempt.invalid"}


@SLOW
def test_where_norms_are_not_checked_its_update_is_applied(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads_too_much(monkeypatch)
    first, second = world_of("local", template(False), tmp_path).finish()
    assert (first.status, first.cohort, first.refusals) == ("released", FOUR, {})
    assert second.status == "released"


@SLOW
def test_a_site_that_is_silent_stops_nothing(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = SiteAgent._project

    def projecting(self: SiteAgent, work) -> None:
        if self.transport._name != BAD:  # type: ignore[attr-defined]
            project(self, work)

    monkeypatch.setattr(SiteAgent, "_project", projecting)
    first, second = world_of("local", template(True), tmp_path).finish()
    assert (first.status, first.attempts, first.cohort) == ("released", 1, FOUR)
    assert (second.status, second.cohort) == ("released", FOUR)


def test_a_site_whose_policy_does_not_accept_it_takes_no_part(
    template: Template, tmp_path: Path
) -> None:
    world = world_of("local", template(True), tmp_path)
    settings = world.workspace.site(BAD) / "site.toml"
    settings.write_text(settings.read_text().replace('"accept"', '"refuse"'))
    first, _ = world.finish()
    assert first.cohort == HONEST
    assert first.refusals == {BAD: "policy.norm_check"}

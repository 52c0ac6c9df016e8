"""A run over Flower's carrier, with files that fail and answers that are lost, by a seed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from contract_worlds import FlowerWorld
from faults import Faults
from support import make_federation

from fmfl_secure.errors import ANY_FAILURE, is_passing
from privacy import Ledger

pytestmark = pytest.mark.slow

SITES = ("site-1", "site-2", "site-3")


class Lossy(FlowerWorld):
    """Loses an answer now and then; what a party cannot do now has none, as from its host."""

    drawn = random.Random(0)

    def send(self, node: int, frame: bytes) -> str | None:
        try:
            message = super().send(node, frame)
        except ANY_FAILURE as error:
            if not is_passing(error):
                raise
            message = str(self.sent)
            self.waiting[message] = None
        if message is not None and not self.drawn.randrange(25):
            self.waiting[message] = None
        return message


@pytest.mark.parametrize("seed", range(3))
def test_a_run_comes_to_its_end(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    monkeypatch.setattr("fmfl_secure.transports.flower.server._NODES_S", 0.05)
    monkeypatch.setattr("fmfl_secure.transports.flower.server._AGAIN_S", 0.05)
    folder = tmp_path / "federation"
    make_federation(folder, tiny_model, sites=3, rounds=2, steps=1, evaluation=False)
    faults = Faults()
    faults.install(monkeypatch)
    world = Lossy(Path(shutil.copytree(folder, tmp_path / "copy")))
    world.drawn = random.Random(seed)
    faults.ask = faults.at_random(seed, one_in=150, longest_s=20.0)
    records = world.finish()
    faults.ask = lambda *_: None
    assert faults.told
    assert world.reason == ""
    assert [record.round for record in records] == [1, 2]
    assert all(
        code.startswith("attempt.") for record in records for code in record.refusals.values()
    ), "a site is left out of attempts, and never refuses"
    for name in SITES:
        budget = Ledger(world.workspace.site(name) / "ledger.sqlite").budget()
        (held,) = budget.reservations.values()
        numbers = [number for number, _ in held.commits]
        assert numbers == sorted(set(numbers))

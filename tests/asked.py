"""Federations whose sites are asked something, for tests."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from support import Quiet

from fmfl_secure.run.record import RunRecord
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.settings.questions import QuestionSection
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger

PRIVACY = {
    "local": "delta = 1e-4\n",
    "distributed": 'delta = 1e-4\nnoise = "distributed"\ninsider_epsilon = 30.0\n',
}
INSIDER = 12.0


def question(*what: str, **more) -> QuestionSection:
    chosen = {"epsilon": 2.0, "insider_epsilon": INSIDER}
    return QuestionSection(what=what or ("units", "labels"), **{**chosen, **more})


def asking(folder: Path, asked: QuestionSection, **changes) -> FederationConfig:
    config = load_federation(folder / "federation.toml")
    return msgspec.structs.replace(config, question=asked, **changes)


def ask(
    folder: Path,
    asked: QuestionSection,
    name: str = "answer",
    *,
    resume: bool = False,
    adapter: bytes = b"",
) -> tuple[RunRecord, Quiet]:
    observer = Quiet()
    engine = LocalEngine(
        folder / "federation.toml",
        folder / name,
        resume=resume,
        observer=observer,
        config=asking(folder, asked),
        adapter=adapter,
    )
    return engine.run(), observer


def ledger(folder: Path, site: str) -> Ledger:
    return Ledger(folder / "sites" / site / "ledger.sqlite")


class Silent:
    """In the place of a source of noise."""

    def __init__(self, *_: object) -> None:
        pass

    def normal(self, n: int) -> np.ndarray:
        return np.zeros(n)

    def integers(self, n: int) -> np.ndarray:
        return np.zeros(n, dtype=np.int64)


def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the noise out of answers."""
    from privacy.queries import protected_sum

    monkeypatch.setattr(protected_sum, "GaussianSource", Silent)
    monkeypatch.setattr(protected_sum, "SkellamSource", Silent)

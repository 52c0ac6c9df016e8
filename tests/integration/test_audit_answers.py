"""The audit of answers goes through a site's own path, and finds noise that is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from asked import PRIVACY, Silent, question
from audited import settled, unless_refuted
from support import settings
from typer.testing import CliRunner

from fmfl_secure.audit import audit_answers, audit_settings
from fmfl_secure.cli import app
from fmfl_secure.errors import ConfigError
from fmfl_secure.settings.written import with_question
from privacy import AuditError
from privacy.queries import protected_sum


def federation(folder: Path, model: Path, noise: str, **more) -> Path:
    folder.mkdir()
    steps = 2 if noise == "local" else 1
    text = settings(model, privacy=PRIVACY[noise], steps=steps, evaluation=False)
    asked = question("units", "labels", **{"epsilon": 1.0, "insider_epsilon": 4.0, **more})
    path = folder / "federation.toml"
    path.write_text(with_question(text, asked))
    return path


def weaken(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """So much of the noise is left."""
    for name in ("GaussianSource", "SkellamSource"):
        own = getattr(protected_sum, name)

        class Weak(own):
            def normal(self, n: int) -> np.ndarray:
                return factor * super().normal(n)

            def integers(self, n: int) -> np.ndarray:
                return np.rint(factor * super().integers(n)).astype(np.int64)

        monkeypatch.setattr(protected_sum, name, Weak if factor else Silent)


@pytest.mark.parametrize("noise", PRIVACY)
@pytest.mark.parametrize(
    ("factor", "flagged"), [(1.0, False), (1 / 8, True), (0.0, True)], ids=["all", "8th", "none"]
)
def test_noise_that_is_missing_or_too_small_is_flagged(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, noise: str, factor: float,
    flagged: bool,
) -> None:  # fmt: skip
    path = federation(tmp_path / "f", tiny_model, noise)
    weaken(monkeypatch, factor)
    record = settled(lambda: audit_answers(path))
    assert record.above_claim == flagged
    assert record.audited == "answers"
    assert record.expected_noise_eighth > record.claimed_epsilon
    assert record.claimed_epsilon <= 1.0


def test_a_bound_that_is_not_kept_is_flagged(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors eight times as long as they may be are noise eight times too small."""
    from privacy.queries import query

    path = federation(tmp_path / "f", tiny_model, "local")
    honest = query.project
    monkeypatch.setattr(query, "project", lambda v, bound: honest(v, 8.0 * bound))
    assert audit_answers(path).above_claim


def test_the_view_of_other_sites_is_audited_as_well(tmp_path: Path, tiny_model: Path) -> None:
    path = federation(tmp_path / "f", tiny_model, "distributed")
    record = settled(lambda: audit_answers(path, against="sites"))
    assert not record.above_claim
    assert (record.against, record.shares) == ("sites", 1)
    outside = audit_answers(path)
    assert outside.claimed_epsilon < record.claimed_epsilon
    with pytest.raises(AuditError, match="one figure"):
        audit_answers(federation(tmp_path / "g", tiny_model, "local"), against="sites")


def test_the_command_says_what_it_audited(tmp_path: Path, tiny_model: Path) -> None:
    path = federation(tmp_path / "f", tiny_model, "local")
    result = unless_refuted(
        lambda: CliRunner().invoke(app, ["audit", str(path), "--answers"]),
        lambda result: result.exit_code == 2,
    )
    assert result.exit_code == 0
    assert "asked of made-up records" in " ".join(result.output.split())
    with pytest.raises(AuditError, match="train nothing"):
        audit_settings(path)
    with pytest.raises(ConfigError, match="beforehand"):
        CliRunner().invoke(app, ["audit", str(tmp_path), "--answers"], catch_exceptions=False)

"""The part of a plan that needs a model: how much is trained, the gate, and signals.

It is measured once for the same settings, base model and code (`fmfl_secure.storage.measured`), so
that whoever tries out settings does not wait for it again, nor for the libraries. In a run sites
pass the gate themselves, each time: nothing that protects them is taken from here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from fmfl_secure.models.base import find_base_model
from fmfl_secure.planning.readings import Signal
from fmfl_secure.settings.federation import FederationConfig, encode_config
from fmfl_secure.storage.measured import Measured, measured_once


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a plan that come from the model.

    Attributes:
        base_model: Its name.
        base_digest: Its digest.
        unlisted: Its architecture, where no table lists it and the gate let it pass; else empty.
        size: Trained numbers that are shared, in the round that trains most.
        parameter_set: Name of the encryption parameters for so many.
        start: Digest of the adapter that training starts from.
        signals: What to expect of gradients, by kind of adapter; None where none was asked for,
            or none can be estimated.
        kept: Trained numbers that stay at each site.
        tensors: Names and sizes of those that are shared in that round, in order.
    """

    base_model: str
    base_digest: str
    unlisted: str
    size: int
    parameter_set: str
    start: str
    signals: dict[str, Signal] | None = None
    kept: int = 0
    tensors: tuple[tuple[str, int], ...] = ()


class _Signals(msgspec.Struct, frozen=True):
    """Kept apart: they take longer than all the rest, and not everybody wants them."""

    by_kind: dict[str, Signal] | None


def look_ahead(config: FederationConfig, *, relative_to: Path, signals: bool) -> Outlook:
    """Pass the gate as every site will, and measure what a plan shows.

    Args:
        config: The settings.
        relative_to: Where a base model's relative path starts.
        signals: Whether to estimate what gradients are like.

    Raises:
        ConfigError: Settings and code do not go together.
        ModelError: The base model is missing, unsafe, or another than pinned.
        PrivacyError: The gate refuses it, or no noise meets the settings.
        ParameterError: No encryption parameters fit them.
    """
    key = ""  # other packages' code and earlier adapters: they depend on what no digest here tells
    if not (config.extensions or config.adapter.initial):
        name, digest = config.model.base, config.model.digest
        base = find_base_model(name, digest=digest, relative_to=relative_to)
        key = f"{base.name}\n{base.digest}\n{encode_config(config).decode()}"
    found = _kept(key, Outlook, lambda: _measure(config, relative_to=relative_to))
    if signals and config.trains and config.privacy.noise_mechanism.private:
        expected = _kept(key, _Signals, lambda: _expect(config, relative_to=relative_to))
        found = msgspec.structs.replace(found, signals=expected.by_kind)
    return found


def _kept(key: str, kind: type[Measured], measure: Callable[[], Measured]) -> Measured:
    return measured_once(key, kind, measure) if key else measure()


def _expect(config: FederationConfig, *, relative_to: Path) -> _Signals:
    from fmfl_secure.planning.signal import expected_signals  # noqa: PLC0415 - brings PyTorch

    return _Signals(expected_signals(config, relative_to=relative_to))


def _measure(config: FederationConfig, *, relative_to: Path) -> Outlook:
    from fmfl_secure.models.adapters import adapter_bytes  # noqa: PLC0415 - brings PyTorch
    from fmfl_secure.planning.plans import encryption_parameters  # noqa: PLC0415
    from fmfl_secure.planning.task import build_task, kept_size, largest_layout  # noqa: PLC0415
    from fmfl_secure.training.admission import check_admission  # noqa: PLC0415
    from fmfl_secure.vectors.adapter import adapter_digest  # noqa: PLC0415

    task = build_task(config, relative_to=relative_to)
    model = task.build_model(seed=config.federation.seed)
    start = adapter_digest(adapter_bytes(model))
    check_admission(config, task, model)
    # Where rounds differ in what they train, the largest upload is shown.
    layout = largest_layout(task, model)
    return Outlook(
        base_model=task.base.name,
        base_digest=task.base.digest,
        unlisted=task.base.unlisted,
        size=layout.size,
        parameter_set=encryption_parameters(config, layout.size).id,
        start=start,
        kept=kept_size(task, model),
        tensors=tuple((slot.name, slot.size) for slot in layout.slots),
    )

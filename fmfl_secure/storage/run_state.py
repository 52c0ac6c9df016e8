"""A run's state as a whole: one struct, its transitions, and how it is kept.

The `facts` table of a run's state holds each field under the field's name, and each entry of a
field by site under the prefix below; the codecs here are the only place that knows their bytes.

`storage.run_store` keeps what a transition changed, one fact a row; `runtime.run_driver` moves a
run's status by the transitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from aggregation.protocol import prepared
from fmfl_secure.errors import RunError
from fmfl_secure.outside import MALFORMED
from fmfl_secure.settings.federation import FederationConfig, decode_config, encode_config

Status = Literal["finished", "stopped", "interrupted"]

PUBLIC: Final = "public"


class RunFacts(msgspec.Struct, frozen=True):
    """Facts fixed for the whole run, and public.

    Attributes:
        base_model: Name of the base model.
        base_model_digest: Its digest.
        layout_digest: Of the first round's tensor layout.
        parameters: Length of the update, of the round that trains most.
        sites: Public key of each site, by name.
        roles: Fingerprint of each other role's, by name.
        initial_adapter: The adapter before the first round, as safetensors.
        line: The runs that made it, as `vectors.adapter_line` writes them; empty for a fresh one.
    """

    base_model: str
    base_model_digest: str
    layout_digest: str
    parameters: int
    sites: dict[str, str]
    roles: dict[str, str]
    initial_adapter: bytes
    line: str = ""


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands. A method gives the state after something happened.

    Attributes:
        run: Run id.
        config: The settings it runs with, to its end.
        started: When it began, ISO 8601.
        origin: Folder that relative paths in the settings start from.
        initial_metrics: Before the first round; None until the first round is to begin.
        outcome: Why the rounds ended early; empty where they did not, None while they go on.
        status: How it ended, or that its process did; None while it runs or where it was killed.
        reason: Why it has that status.
        upload_bytes: The largest upload of a site in the last round.
        end: The coordinator's signed end.
        refusals: Code by site that takes no further part.
        sites: By site, the last note of what it states, as `report.results` writes it.
        changed: When any of this was last written, ISO 8601; None of what 0.1.0 wrote.
    """

    run: str
    config: FederationConfig
    started: str
    origin: Path
    initial_metrics: dict[str, float] | None = None
    outcome: str | None = None
    status: Status | None = None
    reason: str | None = None
    upload_bytes: int = 0
    end: bytes | None = None
    refusals: dict[str, str] = {}
    sites: dict[str, bytes] = {}
    changed: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the run has finished or was stopped."""
        return self.status in {"finished", "stopped"}

    def measured(self, metrics: Mapping[str, float]) -> RunState:
        """The adapter was evaluated before the first round."""
        return msgspec.structs.replace(self, initial_metrics=dict(metrics))

    def uploaded(self, size_bytes: int) -> RunState:
        """A round's uploads came in, the largest of this size."""
        return msgspec.structs.replace(self, upload_bytes=size_bytes)

    def refused(self, site: str, code: str) -> RunState:
        """A site takes no further part."""
        return msgspec.structs.replace(self, refusals=self.refusals | {site: code})

    def noted(self, sites: Mapping[str, bytes]) -> RunState:
        """Adds what sites stated, replacing what they stated before."""
        return msgspec.structs.replace(self, sites=self.sites | dict(sites))

    def rounds_over(self, reason: str = "") -> RunState:
        """The rounds are over, early where there is a reason."""
        return msgspec.structs.replace(self, outcome=reason)

    def signed(self, end: bytes) -> RunState:
        """The coordinator signed the end."""
        return msgspec.structs.replace(self, end=end)

    def marked(self, status: Status, reason: str = "") -> RunState:
        """The run has ended, or its process does."""
        return msgspec.structs.replace(self, status=status, reason=reason)


def encode_state(state: RunState) -> dict[str, bytes]:
    """A state as the facts that are kept of it."""
    facts = {}
    for name, (encode, _) in _FIELDS.items():
        value = getattr(state, name)
        if value is not None:
            facts[name] = encode(value)
    for name, (prefix, encode, _) in _BY_SITE.items():
        facts |= {prefix + site: encode(value) for site, value in getattr(state, name).items()}
    return facts


def changed_facts(before: RunState, after: RunState) -> dict[str, bytes]:
    """The facts that one state has and the one before it had not, or had otherwise."""
    facts = {}
    for name, (encode, _) in _FIELDS.items():
        value = getattr(after, name)
        if value is not None and value != getattr(before, name):
            facts[name] = encode(value)
    for name, (prefix, encode, _) in _BY_SITE.items():
        known = getattr(before, name)
        for site, value in getattr(after, name).items():
            if known.get(site) != value:
                facts[prefix + site] = encode(value)
    return facts


def decode_state(facts: Mapping[str, bytes]) -> RunState:
    """The state that facts are of.

    Raises:
        RunError: One is missing, or not what `encode_state` writes.
    """
    fields: dict[str, Any] = {}
    try:
        for name, (_, decode) in _FIELDS.items():
            if name in facts:
                fields[name] = decode(facts[name])
        for name, (prefix, _, decode) in _BY_SITE.items():
            fields[name] = {
                fact.removeprefix(prefix): decode(value)
                for fact, value in facts.items()
                if fact.startswith(prefix)
            }
    except (ValueError, *MALFORMED) as error:
        raise RunError(f"a fact is damaged: {error}") from error
    for name in _REQUIRED:
        if name not in fields:
            raise RunError(f"it holds no {name}")
    return RunState(**fields)


def encode_public(public: RunFacts) -> bytes:
    """Public facts as one fact of the run."""
    return msgspec.msgpack.encode(public)


def decode_public(data: bytes) -> RunFacts:
    """Read what `encode_public` wrote.

    Raises:
        RunError: It is something else.
    """
    try:
        return msgspec.msgpack.decode(data, type=prepared(RunFacts))
    except MALFORMED as error:
        raise RunError(str(error)) from error


def _text(data: bytes) -> str:
    return data.decode()


def _path(data: bytes) -> Path:
    return Path(data.decode())


def _status(data: bytes) -> Status:
    status: Status = msgspec.convert(data.decode(), Status)
    return status


def _metrics(data: bytes) -> dict[str, float]:
    # One that is no number, or has no bound, is null in JSON.
    found = msgspec.json.decode(data, type=dict[str, float | None])
    return {name: math.nan if value is None else value for name, value in found.items()}


_Codec = tuple[Callable[[Any], bytes], Callable[[bytes], Any]]
_TEXT: Final[_Codec] = (str.encode, _text)
_FIELDS: Final[Mapping[str, _Codec]] = {
    "run": _TEXT,
    "config": (encode_config, lru_cache(maxsize=8)(decode_config)),  # read at every step
    "started": _TEXT,
    "origin": (lambda path: str(path).encode(), _path),
    "initial_metrics": (msgspec.json.encode, _metrics),
    "outcome": _TEXT,
    "status": (str.encode, _status),
    "reason": _TEXT,
    "upload_bytes": (lambda size: b"%d" % size, int),
    "end": (bytes, bytes),
    "changed": _TEXT,
}
_BY_SITE: Final[Mapping[str, tuple[str, *_Codec]]] = {
    "refusals": ("refusal/", *_TEXT),
    "sites": ("site/", bytes, bytes),
}
_REQUIRED: Final = ("run", "config", "started", "origin")

"""From a run's state to what people take away: `metrics.json`, `report.json`, `report.html`.

Everything is rebuilt from the run's state, and the audit's `audit.json` where there is one, so that
a report can be made again later, and of a run that was cut off in the middle.

`report.child` calls `write_results` in a process beside the run (`runtime.results_apart`), and
`fmfl-secure report` (`cli.report`) calls it whenever somebody wants the files again.
"""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import msgspec

from aggregation import PublicIdentity
from fmfl_secure._version import __version__
from fmfl_secure.errors import RunError
from fmfl_secure.extensions import installed_version, package_of
from fmfl_secure.outside import MALFORMED
from fmfl_secure.report import write_report
from fmfl_secure.report.agreement import without_contradictions
from fmfl_secure.report.derived import encryption_of, mechanism_of
from fmfl_secure.report.model_card import TASK_FILE, write_card
from fmfl_secure.run.answers import answers_of
from fmfl_secure.run.attack_record import load_attack
from fmfl_secure.run.audit_check import load_audit
from fmfl_secure.run.evaluation_record import load_evaluation
from fmfl_secure.run.keys_record import load_keys
from fmfl_secure.run.record import (
    FORMAT,
    RunRecord,
    SiteRecord,
    decode_round,
)
from fmfl_secure.run.site_notes import read_site_note
from fmfl_secure.settings.federation import FederationConfig, encode_config
from fmfl_secure.storage.files import write_outputs
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.vectors.adapter import adapter_digest
from fmfl_secure.vectors.adapter_line import AdapterLine, decode_line

_LIBRARIES = (
    "torch", "transformers", "peft", "opacus", "dp-accounting", "tenseal", "cryptography", "numpy",
)  # fmt: skip


_KILLED = "the process ended without finishing"


def write_results(store: RunStore) -> RunRecord:
    """Write a run's metrics and report into its folder, from its state.

    Raises:
        RunError: Its state is damaged, or a file cannot be written.
    """
    folder = store.folder
    try:
        record = build_record(store)
    except (KeyError, *MALFORMED) as error:
        raise RunError(f"the run in {folder} is damaged: {error}") from error
    metrics = {
        "run": record.run,
        "status": record.status,
        "initial": record.initial_metrics,
        "rounds": [{"round": r.round, "status": r.status, **r.metrics} for r in record.rounds],
        **({"answers": record.answers} if record.answers else {}),
    }
    encoded = msgspec.json.format(msgspec.json.encode(metrics), indent=2) + b"\n"
    write_outputs(
        folder,
        {"metrics.json": encoded},
        what="metrics",
        hint="Check that the folder is writable and that there is space; the run is unharmed.",
    )
    write_report(record, folder)
    if (folder / "adapter" / TASK_FILE).is_file():
        write_card(record, folder / "adapter")
    return record


def build_record(store: RunStore) -> RunRecord:
    """The record of a run, from its state.

    Raises:
        RunError: The state is damaged.
    """
    state = store.state
    config = state.config
    rounds = tuple(decode_round(r) for r in store.rounds())
    public = store.public()
    notes = {name: read_site_note(note) for name, note in state.sites.items()}
    # A run whose process was killed had no time to say so.
    status = state.status or "interrupted"
    reason = "" if status == "finished" else state.reason or _KILLED
    record = RunRecord(
        format=FORMAT,
        federation=config.federation.name,
        run=state.run,
        status=status,
        stop_reason=reason,
        started=state.started,
        # A fact of the run, the same whenever somebody looks at it.
        updated=max(state.started, state.changed or "", *(each.at for each in rounds)),
        settings=msgspec.json.decode(encode_config(config)),
        settings_digest=config.digest,
        base_model=public.base_model,
        base_model_digest=public.base_model_digest,
        layout_digest=public.layout_digest,
        mechanism=mechanism_of(config, public.parameters),
        encryption=encryption_of(config, parameters=public.parameters, upload=state.upload_bytes),
        sites=tuple(
            SiteRecord(
                name=entry.name,
                population=entry.population,
                identity=PublicIdentity.parse(entry.name, public.sites[entry.name]).fingerprint,
                public_key=public.sites[entry.name],
                visibility=note.visibility if note else "private",
                rounds=tuple(r.round for r in rounds if entry.name in r.cohort),
                refusal=note.refusal if note else None,
                statement=note.statement if note else None,
                statement_signature=note.signature if note else "",
                not_shown=note.not_shown or msgspec.UNSET if note else msgspec.UNSET,
            )
            for entry in config.sites
            for note in [notes.get(entry.name)]
        ),
        rounds=rounds,
        initial_metrics=state.initial_metrics or {},
        evaluation=Path(config.evaluation.file).name,
        identities=public.roles,
        versions=_versions(config),
        audit=load_audit(
            store.folder,
            run=state.run,
            settings_digest=config.digest,
            base_model_digest=public.base_model_digest,
        ),
        keys=load_keys(store.folder),
        line=AdapterLine(adapter_digest(public.initial_adapter), decode_line(public.line))
        if public.line
        else msgspec.UNSET,
        answers=answers_of(config, rounds) or msgspec.UNSET,
        attack=load_attack(store.folder, run=state.run, settings_digest=config.digest)
        or msgspec.UNSET,
        looked_at=load_evaluation(store.folder, run=state.run, settings_digest=config.digest)
        or msgspec.UNSET,
    )
    return without_contradictions(record)


def _versions(config: FederationConfig) -> dict[str, str]:
    versions = {"fmfl-secure": __version__, "python": platform.python_version()}
    # A server need not have what sites train with.
    for name in config.extensions:
        versions[package_of(name)] = installed_version(name) or "not installed at the server"
    return versions | {name: importlib.metadata.version(name) for name in _LIBRARIES}

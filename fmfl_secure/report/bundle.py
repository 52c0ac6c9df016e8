"""A report that can be checked years later, without the run and without this machine.

One file in canonical JSON holds the page, the record and the coordinator's signed end of the run,
under the coordinator's signature. Inside the record every site's statement of its ledger carries
that site's own signature. A reader needs the parties' fingerprints from somewhere else, such as
the minutes of the meeting where the federation was agreed on: a bundle that names its own keys
proves nothing about who holds them.

`fmfl-secure report bundle` (`cli.report`) calls `bundle_run`; `report verify` loads, verifies and,
where asked, extracts. Verifying goes from the coordinator's signature to the sites' and the run's
end, and at last renders the page once more where the version is the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec

from aggregation import AggregationError, Identity, PublicIdentity
from fmfl_secure.errors import RunError
from fmfl_secure.outside import MOST_DOCUMENT, read_regular
from fmfl_secure.parties.workspace import COORDINATOR, Workspace
from fmfl_secure.report.agreement import is_of_this_version
from fmfl_secure.report.inert import active_parts
from fmfl_secure.report.on_its_word import unsigned_parts
from fmfl_secure.report.page import render_html
from fmfl_secure.report.results import build_record
from fmfl_secure.report.signed import check_statements
from fmfl_secure.report.write import HTML_NAME, JSON_NAME
from fmfl_secure.run.end import read_end, rounds_of
from fmfl_secure.run.record import RunRecord, decode_record, encode_record
from fmfl_secure.storage.files import write_output, write_outputs
from fmfl_secure.storage.run_store import RunStore

FORMAT = "fmfl-secure/report-bundle/v1"

_MAKE = (
    "Name the signed bundle, which alone can be checked by itself: fmfl-secure report bundle RUN "
    "--output FILE makes it where the run and its coordinator's key are."
)
_DOMAIN = b"fmfl-secure/report-bundle/v1\x00"


class _Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: str
    coordinator: str
    report_json: str
    report_html: str
    end: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class CheckedBundle:
    """A bundle that holds.

    Attributes:
        record: The run's record.
        page: The report's page: as this version makes it of the record, pictures and all; one of
            another version as it was signed.
        fingerprints: Of the coordinator and of every site whose signature was checked, by name.
        ended: Whether the coordinator signed that the run had ended.
        rendered_again: Whether the page is the one that this version makes of the record; another
            version's page can only be compared by its signature.
        unsigned: What in it nobody but the coordinator says, in sentences.
    """

    record: RunRecord
    page: str
    fingerprints: dict[str, str]
    ended: bool
    rendered_again: bool
    unsigned: tuple[str, ...]


def write_bundle(record: RunRecord, end: bytes, coordinator: Identity) -> bytes:
    """Sign a run's report.

    Args:
        record: The run.
        end: The coordinator's signed end of it; empty for one that can still go on.
        coordinator: Its identity.

    Raises:
        RunError: The record names another coordinator.
    """
    if record.identities.get(COORDINATOR) != coordinator.public.fingerprint:
        raise RunError(
            f"the run's coordinator is {record.identities.get(COORDINATOR)}, and this key is "
            f"{coordinator.public.fingerprint}",
            hint="Name the coordinator's own identity.pem.",
        )
    # The page is of what the file holds, whose keys are sorted, as whoever checks it has no other.
    encoded = encode_record(record)
    body = _Bundle(
        format=FORMAT,
        coordinator=coordinator.public.text,
        report_json=encoded.decode(),
        report_html=render_html(decode_record(encoded)),
        end=end.hex(),
    )
    signature = coordinator.sign(_DOMAIN + _canonical(body)).hex()
    return _canonical(msgspec.structs.replace(body, signature=signature))


def verify_bundle(
    data: bytes, *, coordinator: str = "", sites: Mapping[str, str] = MappingProxyType({})
) -> CheckedBundle:
    """Check a bundle: its form, every signature in it, and that its parts agree.

    A coordinator signs what it likes: what nobody else's signature holds is in `unsigned`.

    Args:
        data: The file's bytes.
        coordinator: Fingerprint that its coordinator must have, from elsewhere; empty takes any.
        sites: Fingerprints that its sites must have, likewise; of one that is not named any.

    Raises:
        RunError: A byte was changed, a part is missing, or parts contradict each other.
    """
    bundle = _parse(data)
    try:
        identity = PublicIdentity.parse(COORDINATOR, bundle.coordinator)
        unsigned = msgspec.structs.replace(bundle, signature="")
        identity.verify(bytes.fromhex(bundle.signature), _DOMAIN + _canonical(unsigned))
        record = decode_record(bundle.report_json.encode())
        fingerprints = {COORDINATOR: identity.fingerprint, **check_statements(record)}
        ended = bool(bundle.end) and _check_end(bytes.fromhex(bundle.end), identity, record)
    except (AggregationError, ValueError) as error:
        raise RunError(f"the bundle does not hold: {error}") from error
    if coordinator and identity.fingerprint != coordinator:
        raise RunError(f"the bundle is signed by {identity.fingerprint}, not by {coordinator}")
    _require_sites(record, sites)
    if record.identities.get(COORDINATOR) != identity.fingerprint:
        raise RunError("the bundle is not signed by the coordinator that its report names")
    if record.status == "finished" and not ended:
        raise RunError("the report says that the run has finished, and no signed end says so")
    if active := active_parts(bundle.report_html):
        raise RunError(
            f"the page would do more than be read: {active[0]}, which no page of ours has",
            hint="Do not open it. Ask for a bundle as fmfl-secure report bundle makes it.",
        )
    same_version, page = is_of_this_version(record), bundle.report_html
    if same_version:
        page = render_html(record)  # a picture that somebody else drew shows what they like
        if _words(page) != _words(bundle.report_html):
            raise RunError("the page does not say what the record says")
    return CheckedBundle(
        record=record,
        page=page,
        fingerprints=fingerprints,
        ended=ended,
        rendered_again=same_version,
        unsigned=unsigned_parts(record, ended=ended),
    )


def bundle_run(run_folder: Path, output: Path, *, identity: Path | None = None) -> str:
    """Write a run's signed report.

    Args:
        run_folder: The run.
        output: The file.
        identity: The coordinator's key file; None takes that of the federation's folder.

    Returns:
        The coordinator's fingerprint.

    Raises:
        RunError: There is no run, its coordinator is another, or the file cannot be written.
        AggregationError: The key file is not one.
    """
    store = RunStore(run_folder)
    state = store.state
    own = Workspace(state.origin).role(COORDINATOR) / "identity.pem"
    coordinator = Identity.load(identity or own, COORDINATOR)
    data = write_bundle(build_record(store), state.end or b"", coordinator)
    write_output(output, data)
    return coordinator.public.fingerprint


def extract_bundle(checked: CheckedBundle, folder: Path) -> None:
    """Write a bundle's page and record as files.

    Raises:
        RunError: They cannot be written.
    """
    contents = {
        HTML_NAME: checked.page.encode(),
        JSON_NAME: encode_record(checked.record),
    }
    write_outputs(folder, contents, what="the report")


def load_bundle(path: Path) -> bytes:
    """A bundle's bytes.

    Raises:
        RunError: It cannot be read, or is larger than any report.
    """
    try:
        return read_regular(path, most_bytes=MOST_DOCUMENT)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}", hint=_MAKE) from error


def _parse(data: bytes) -> _Bundle:
    try:
        bundle = msgspec.json.decode(data, type=_Bundle)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeError) as error:
        raise RunError(f"not a report's bundle: {error}", hint=_MAKE) from error
    if bundle.format != FORMAT:
        raise RunError(f"the bundle's format is {bundle.format!r}, expected {FORMAT!r}")
    if _canonical(bundle) != data:
        raise RunError("the bundle was changed: it is not in its one form")
    return bundle


def _check_end(end: bytes, coordinator: PublicIdentity, record: RunRecord) -> bool:
    if read_end(end, coordinator=coordinator, run=record.run).rounds != rounds_of(record.rounds):
        raise RunError("the rounds of the report are not those of the run's signed end")
    return True


def _require_sites(record: RunRecord, expected: Mapping[str, str]) -> None:
    """Whoever signs a report can put a key that it made in a site's place, and sign with it."""
    own = {site.name: site.identity for site in record.sites}
    for name, fingerprint in expected.items():
        if own.get(name) != fingerprint:
            raise RunError(
                f"{name} has the key {fingerprint}, and the bundle "
                + (f"says {own[name]}" if name in own else "has no site of that name"),
                hint="Do not rely on it: ask the site what it signed.",
            )


def _words(page: str) -> str:
    # Pictures are drawn by a library whose versions place lines differently.
    return re.sub(r"<svg\b.*?</svg>", "", page, flags=re.DOTALL)


def _canonical(bundle: _Bundle) -> bytes:
    return msgspec.json.encode(bundle, order="sorted") + b"\n"

"""From parties' requests to one answer each: certificates and the list of parties, no keys.

    DIR/authority/                   ca.pem, ca.key, issued.json, as ever
    DIR/authority/requests/          the request that each party's answer is to
    DIR/authority/certificates/      the certificate that was issued for it
    DIR/NAME.answer                  what the party puts beside its keys

No party's private key is ever here. Run again with new requests, it answers those, and gives every
other party an answer with the settings as they are now.

`fmfl-secure provision --requests` (`cli.service`) calls `certify_requests`: requests are read and
compared with the settings and with those known, new keys are certified, and an answer is written
for every party.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from aggregation import PublicIdentity
from fmfl_secure.errors import ConfigError, ServiceError
from fmfl_secure.outside import MOST_DOCUMENT, read_regular
from fmfl_secure.parties.workspace import AGGREGATOR, COORDINATOR, Members
from fmfl_secure.provisioning.answer import SUFFIX, Answer, sign_answer
from fmfl_secure.provisioning.authority import Authority, keys_were_drawn
from fmfl_secure.provisioning.certificate_requests import public_bytes
from fmfl_secure.provisioning.certificates import CUSTODIAN, DECRYPTOR, SERVER, SITE
from fmfl_secure.provisioning.fingerprints import groups
from fmfl_secure.provisioning.key_request import SUFFIX as REQUEST
from fmfl_secure.provisioning.key_request import ReadRequest, read_request
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.storage.files import write_files


def certify_requests(
    federation: Path, requests: Path, output: Path, *, replace: Collection[str] = ()
) -> list[str]:
    """Verify requests, certify their keys and write answers.

    Args:
        federation: Path of `federation.toml`.
        requests: Folder with the parties' `NAME.request`.
        output: Folder for the authority and the answers.
        replace: Sites whose new identity is certified though the old one did not sign for it: its
            key is lost. Whoever says so has asked the site's people.

    Returns:
        What was made, and fingerprints to compare, for people to read.

    Raises:
        ConfigError: The settings are wrong.
        ServiceError: A request cannot be answered; nothing was made.
    """
    config = load_federation(federation)
    if unknown := sorted(set(replace) - {entry.name for entry in config.sites}):
        raise ConfigError(
            f"--replace {unknown[0]}: the settings have no such site",
            hint=f"Name one of them: {', '.join(entry.name for entry in config.sites)}",
        )
    if keys_were_drawn(output):
        raise ServiceError(
            f"keys in {output} were drawn by whoever provisioned",
            hint="Requests are answered in a folder of their own: give another --output.",
        )
    authority_folder = output / "authority"
    kept = _read_all(authority_folder / "requests", config)
    new = {n: r for n, r in _read_all(requests, config).items() if not _same(r, kept.get(n))}
    _check_settings(config, kept, new)
    for name, request in new.items():
        if name in kept:
            _check_replacement(kept[name], request, replaced=name in replace)
    parties = {name: each for name, each in {**kept, **new}.items() if _listed(config, each)}
    _check_distinct(parties)
    created: list[str] = []
    output.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Before the authority's key: it says that this folder is for requests.
    (authority_folder / "requests").mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = Authority.open(authority_folder, config.federation.name, created)
    for name, read in new.items():
        asked = read.request
        certificate = authority.certify_key(asked.tls_key, asked.role, name, hosts=asked.hosts)
        # The certificate first: after a crash between the two it is issued again.
        write_files(authority_folder / "certificates", {f"{name}.pem": certificate})
        write_files(authority_folder / "requests", {f"{name}{REQUEST}": read.data})
        created.append(f"a certificate for the {asked.role} {name}")
        created += [f"  {line}" for line in _fingerprints(read)]
    members = _members(parties).encode().decode("ascii")
    answers = {}
    for name, read in parties.items():
        answer = Answer(
            federation=config.federation.name,
            role=read.request.role,
            name=name,
            request=read.digest,
            settings=federation.read_text(encoding="utf-8"),
            members=members,
            url=parties[SERVER].request.url,
            authority=authority.pair.certificate.decode("ascii"),
            certificate=(authority_folder / "certificates" / f"{name}.pem").read_text("ascii"),
        )
        answers[f"{name}{SUFFIX}"] = sign_answer(authority.pair, answer)
    write_files(output, answers)
    return [*created, *(f"answer {output / file}" for file in answers)]


def _read_all(folder: Path, config: FederationConfig) -> dict[str, ReadRequest]:
    found: dict[str, ReadRequest] = {}
    for path in sorted(folder.glob(f"*{REQUEST}")):
        read = read_request(
            read_regular(path, most_bytes=MOST_DOCUMENT),
            federation=config.federation.name,
            source=str(path),
        )
        name = read.request.name
        if name in found:
            raise ServiceError(
                f"{path} is a second request of {name}",
                hint="Ask the party which is its own, by fingerprint, and remove the other.",
            )
        found[name] = read
    return found


def _same(read: ReadRequest, kept: ReadRequest | None) -> bool:
    return kept is not None and read.digest == kept.digest


def _expected(config: FederationConfig) -> Iterator[tuple[str, str]]:
    yield SERVER, SERVER
    yield DECRYPTOR, DECRYPTOR
    for name in config.aggregation.custodians:
        yield CUSTODIAN, name
    for entry in config.sites:
        yield SITE, entry.name


def _listed(config: FederationConfig, read: ReadRequest) -> bool:
    return (read.request.role, read.request.name) in set(_expected(config))


def _check_settings(
    config: FederationConfig, kept: Mapping[str, ReadRequest], new: Mapping[str, ReadRequest]
) -> None:
    """Every party of the settings has a request, and nobody else; sites that left are kept."""
    found = {**kept, **new}
    for name, read in found.items():
        if not _listed(config, read) and (name in new or read.request.role != SITE):
            raise ConfigError(
                f"the settings have no {read.request.role} {name!r}",
                hint="Take its request out of the folder, or name it in the settings of all.",
            )
    missing = [
        f"{role} {name}"
        for role, name in _expected(config)
        if name not in found or found[name].request.role != role
    ]
    if missing:
        raise ServiceError(
            f"there is no request of: {', '.join(missing)}",
            hint="Each party makes its own: fmfl-secure request FOLDER --role ROLE --name NAME.",
        )


def _check_replacement(kept: ReadRequest, new: ReadRequest, *, replaced: bool) -> None:
    """A party that is known asks for a new certificate, or as a site for a new identity."""
    name = kept.request.name
    if new.request.role != kept.request.role:
        raise ServiceError(f"{name} is a {kept.request.role} and asks as a {new.request.role}")
    if new.request.at <= kept.request.at:
        raise ServiceError(
            f"{name} has an answer to a later request than this",
            hint="An earlier request, sent again, would bring an earlier key back.",
        )
    if new.request.identities == kept.request.identities:
        return
    if new.request.role != SITE:
        raise ServiceError(
            f"{name} asks with another identity: every party pins it from the start",
            hint="Provision a new federation.",
        )
    (old,) = kept.request.public.values()
    if not replaced and not new.replaces(old):
        raise ServiceError(
            f"{name} asks with another identity, and the one that is known did not sign for it",
            hint=f"Somebody may pose as {name}. If its people lost their key and tell you these "
            f"fingerprints themselves: --replace {name}.",
        )


def _check_distinct(parties: Mapping[str, ReadRequest]) -> None:
    """No key serves two parties, or two ends of one."""
    seen: dict[bytes, str] = {}
    for name, read in parties.items():
        keys = [identity.key for identity in read.request.public.values()]
        for key in (*keys, public_bytes(read.request.tls_key)):
            if key in seen:
                raise ServiceError(
                    f"{seen[key]} and {name} ask with one key",
                    hint="Ask both to draw keys of their own: one of them has taken the other's.",
                )
            seen[key] = name


def _members(parties: Mapping[str, ReadRequest]) -> Members:
    public: dict[str, dict[str, PublicIdentity]] = {
        SERVER: {},
        DECRYPTOR: {},
        CUSTODIAN: {},
        SITE: {},
    }
    for read in parties.values():
        public[read.request.role].update(read.request.public)
    return Members(
        coordinator=public[SERVER][COORDINATOR],
        aggregator=public[SERVER][AGGREGATOR],
        decryptor=public[DECRYPTOR][DECRYPTOR],
        sites=public[SITE],
        custodians=public[CUSTODIAN],
    )


def _fingerprints(read: ReadRequest) -> Iterator[str]:
    for name, identity in read.request.public.items():
        yield f"{name:<12} {groups(identity.fingerprint)}"

"""Each party draws its own keys: the whole way typed, and everybody who could stand in it."""

from __future__ import annotations

import base64
import json
import random
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from key_owners import SITES, URL, Owners, typed, whole_ceremony
from support import settings
from typer.testing import CliRunner

from aggregation import AggregationError, Identity
from fmfl_secure.cli import app
from fmfl_secure.doctor.keys import examine_keys
from fmfl_secure.errors import ConfigError, FmflError, NotApproved, ServiceError
from fmfl_secure.parties.acts import FILE, ActLog
from fmfl_secure.parties.membership import MembershipFolder, next_list
from fmfl_secure.provisioning.answer import read_answer, sign_answer
from fmfl_secure.provisioning.authority import Authority, revoke
from fmfl_secure.provisioning.ceremony import (
    collect,
    keys_record,
    require_comparison,
    standing,
)
from fmfl_secure.provisioning.certificates import new_authority, new_key, read_peer
from fmfl_secure.provisioning.key_request import read_request
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.settings.federation import load_site
from fmfl_secure.transports.https.membership import follow_removals
from fmfl_secure.transports.https.tls import client_context, server_context
from privacy import Ledger

PARTIES = ("server", "decryptor", *SITES, "board")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Owners:
    return whole_ceremony(tmp_path_factory.mktemp("owners"), Path("model"))


@pytest.fixture
def owners(tmp_path: Path, template: Owners) -> Owners:
    """All parties, done with everything."""
    shutil.copytree(template.folder, tmp_path / "copy")
    return Owners(tmp_path / "copy")


@pytest.fixture(scope="module")
def asked_once(tmp_path_factory: pytest.TempPathFactory) -> Owners:
    owners = Owners(tmp_path_factory.mktemp("asked"))
    owners.begin(settings(Path("model"), sites=3, evaluation=False))
    owners.request("server", "--url", URL, role="server")
    owners.request("decryptor", role="decryptor")
    for name in SITES:
        owners.request(name)
    return owners


@pytest.fixture
def asked(tmp_path: Path, asked_once: Owners) -> Owners:
    """All requests are on their way, and nothing is answered."""
    shutil.copytree(asked_once.folder, tmp_path / "copy")
    return Owners(tmp_path / "copy")


def refusal(*words: object, answer: str = "") -> str:
    """Why a command refuses."""
    done = CliRunner().invoke(app, [str(word) for word in words], input=answer)
    assert isinstance(done.exception, FmflError | AggregationError), done.output
    return f"{done.exception} {done.exception.hint}"


def refused_request(owners: Owners) -> str:
    said = refusal(
        "provision", owners.settings, "--requests", owners.post, "--output", owners.answers
    )
    assert not list(owners.answers.glob("*.answer"))
    assert not list(owners.answers.rglob("issued.json"))
    return said


def secrets_of(folder: Path) -> set[bytes]:
    public = {"ca.pem", "certificate.pem"}
    found = (*folder.rglob("*.pem"), *folder.rglob("*.key"), *folder.rglob("*.token"))
    return {file.read_bytes() for file in found if file.name not in public}


def lists_of(owners: Owners) -> Callable[[int], list[str]]:
    """What the server sends of its membership lists."""
    held = MembershipFolder(owners.at("server"))
    return lambda after: [base64.b64encode(each).decode() for each in held.lists()[after:]]


def test_every_party_ends_with_a_kit_and_no_key_has_left_its_folder(template: Owners) -> None:
    everything = [file.read_bytes() for file in template.folder.rglob("*") if file.is_file()]
    for name in PARTIES:
        kit = Kit(template.at(name))
        own = secrets_of(kit.folder)
        assert len(own) >= 3
        for secret in own:
            # Of a PEM file the first line has the private key's first bytes.
            begins = [
                line for line in secret.splitlines() if b"-----" not in line and len(line) > 30
            ]
            for part in (secret, *begins[:1]):
                assert sum(part in data for data in everything) == 1
        assert not any(
            f.stat().st_mode & 0o077 for f in kit.folder.rglob("*.pem") if "key" in f.name
        )
        context = server_context if name == "server" else client_context
        context(kit.tls)
        require_comparison(kit.folder)
        assert {f.state for f in examine_keys(kit.folder)} == {"ok"}
    names = {n: MembershipFolder(template.at(n)).members() for n in PARTIES}
    assert len({members.encode() for members in names.values()}) == 1
    site = template.at("site-1")
    assert Ledger(site / "ledger.sqlite").budget().grants == []
    assert load_site(site / "site.toml").data.path == "data/train.csv"


def test_the_comparison_is_signed_by_all_and_said_in_doctor_and_report(template: Owners) -> None:
    record = keys_record(template.at("server"))
    assert (record.one_place, record.missing) == (False, ())
    assert {one.party for one in record.compared} == {*PARTIES, "coordinator"} - {"server"}
    assert all(one.drew_own_keys for one in record.compared)
    (found,) = examine_keys(template.at("board"))
    assert "drawn and compared by all 6 parties" in found.found


def test_a_custodian_whom_the_settings_do_not_name_is_told_where(tmp_path: Path) -> None:
    """Who follows docs/deployment.md with settings that name none."""
    owners = Owners(tmp_path)
    owners.begin(settings(tmp_path))
    words = ("request", tmp_path / "board", "--federation", owners.settings, "--role", "custodian")
    done = CliRunner().invoke(app, [*map(str, words), "--name", "board"])
    assert isinstance(done.exception, ConfigError)
    assert "list it in [aggregation] custodians" in done.exception.hint


def test_a_comparison_that_nobody_types_is_refused_with_what_to_do(owners: Owners) -> None:
    words = ("ceremony", "sign", owners.at("site-1"), "--heard-from", "coordinator")
    done = CliRunner().invoke(app, [*map(str, words)], input="")
    assert isinstance(done.exception, ServiceError)
    assert "--heard" in done.exception.hint


def test_the_office_says_where_what_a_run_starts_from_belongs(template: Owners) -> None:
    assert f"bring {template.answers / 'start.safetensors'} to the server" in template.provision()


def test_nobody_takes_part_before_it_has_compared(owners: Owners) -> None:
    from fmfl_secure.transports.https.processes.custodian import CustodianProcess

    shutil.rmtree(owners.at("board") / "ceremony")
    with pytest.raises(ServiceError, match="have not compared"):
        CustodianProcess(Kit(owners.at("board")))
    assert [f.state for f in examine_keys(owners.at("board"))] == ["fault"]
    # Others' signatures do not stand for one's own.
    records = [p for p in owners.post.glob("*.json") if not p.name.startswith("board")]
    typed("ceremony", "collect", owners.at("board"), *records)
    with pytest.raises(ServiceError, match="have not compared"):
        require_comparison(owners.at("board"))


def alter(path: Path, change: Callable[[dict], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_request_that_was_altered_on_the_way_is_refused(asked: Owners) -> None:
    mallory = Identity.generate("site-1").public.text
    path = asked.post / "site-1.request"
    alter(path, lambda d: d["request"]["identities"].update({"site-1": mallory}))
    assert "not signed with the key of site-1" in refused_request(asked)
    shutil.copy(asked.at("site-1") / "site-1.request", path)
    other = json.loads((asked.post / "site-2.request").read_text())["request"]
    # Another's certificate request in the place of its own, all else signed anew by the thief.
    alter(
        path,
        lambda d: d["request"].update(certificate_request=other["certificate_request"]),
    )
    assert "not signed with the key of site-1" in refused_request(asked)


def test_a_thief_cannot_put_another_s_certificate_request_into_its_own(asked: Owners) -> None:
    from cryptography import x509

    from fmfl_secure.provisioning import key_request

    taken = json.loads((asked.post / "site-2.request").read_text())["request"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            key_request, "request_certificate", lambda *_, **__: taken["certificate_request"]
        )
        for name in ("site-1", "site-2"):  # as itself, and in the other's name
            thief = key_request.write_request(
                federation="tiny", role="site", name=name, url="",
                identities={name: Identity.generate(name)}, tls_key=new_key(),
            )  # fmt: skip
            with pytest.raises(ServiceError, match=r"names another party|other identity keys"):
                key_request.read_request(thief, federation="tiny", source="thief")
    assert x509.load_pem_x509_csr(taken["certificate_request"].encode()).is_signature_valid


def test_two_requests_with_one_name_are_refused(asked: Owners) -> None:
    typed("request", asked.folder / "impostor", "--federation", asked.settings, "--name", "site-2")
    shutil.copy(asked.folder / "impostor/site-2.request", asked.post / "again.request")
    assert "second request of site-2" in refused_request(asked)


@pytest.mark.parametrize("shared", ["identity", "tls"])
def test_two_requests_with_one_key_are_refused(asked: Owners, shared: str) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from fmfl_secure.provisioning.key_request import write_request

    folder = asked.at("site-1")
    identity = Identity.load(folder / "identity.pem", "site-2")
    other = Identity.load(asked.at("site-2") / "identity.pem", "site-2")
    tls_key = load_pem_private_key((folder / "tls/key.pem").read_bytes(), password=None)
    asks = write_request(
        federation="tiny", role="site", name="site-2", url="",
        identities={"site-2": identity if shared == "identity" else other},
        tls_key=new_key() if shared == "identity" else tls_key,  # type: ignore[arg-type]
    )  # fmt: skip
    (asked.post / "site-2.request").write_bytes(asks)
    assert "site-1 and site-2 ask with one key" in refused_request(asked)


def test_another_federation_s_request_is_refused_and_so_is_one_of_nobody(asked: Owners) -> None:
    text = asked.settings.read_text()
    elsewhere = asked.folder / "elsewhere.toml"
    elsewhere.write_text(text.replace('name = "tiny"', 'name = "other"'))
    typed("request", asked.folder / "there", "--federation", elsewhere, "--name", "site-3")
    shutil.copy(asked.folder / "there/site-3.request", asked.post / "site-3.request")
    assert "for the federation 'other'" in refused_request(asked)
    (asked.post / "site-3.request").unlink()
    assert "no request of: site site-3" in refused_request(asked)
    shutil.copy(asked.at("site-3") / "site-3.request", asked.post)
    more = asked.folder / "more.toml"
    more.write_text(text + '\n[[sites]]\nname = "site-4"\npopulation = 40\n')
    typed("request", asked.folder / "site-4", "--federation", more, "--name", "site-4")
    shutil.copy(asked.folder / "site-4/site-4.request", asked.post)
    assert "the settings have no site 'site-4'" in refused_request(asked)
    said = refusal("request", asked.folder / "x", "--federation", asked.settings, "--name", "x")
    assert "no site 'x'" in said
    assert not (asked.folder / "x").exists()


def test_keys_are_drawn_once_and_the_two_ways_do_not_mix(asked: Owners) -> None:
    again = ("request", asked.at("site-1"), "--federation", asked.settings, "--name", "site-1")
    assert "keys are drawn once" in refusal(*again)
    asked.provision()
    mixed = refusal("provision", asked.settings, "--output", asked.answers)
    assert "draw their own keys" in mixed
    assert "draws its own keys" in refusal("certificates", "renew", asked.answers, "site-1")
    typed("provision", asked.settings, "--output", asked.folder / "drawn")
    mixed = refusal(
        "provision", asked.settings, "--requests", asked.post, "--output", asked.folder / "drawn"
    )
    assert "drawn by whoever provisioned" in mixed
    sealed = ("--requests", asked.post, "--output", asked.folder / "y", "--seal")
    assert "do not go with --requests" in refusal("provision", asked.settings, *sealed)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("site-1", "identity.pem"),
        ("site-1", "tls/key.pem"),
        ("server", "aggregator/identity.pem"),
    ],
)
@pytest.mark.parametrize("how", ["gone", "junk", "another's"])
def test_an_answer_is_of_no_use_without_the_keys_it_is_for(
    asked: Owners, name: str, file: str, how: str
) -> None:
    asked.provision()
    key = asked.at(name) / file
    other = asked.at("site-2") / file.removeprefix("aggregator/")
    key.unlink()
    if how != "gone":
        key.write_bytes(other.read_bytes() if how == "another's" else b"junk")
        key.chmod(0o600)
    assert refusal("accept", asked.at(name), asked.answers / f"{name}.answer")
    assert not (asked.at(name) / "members.json").exists()
    assert not (asked.at(name) / "tls/certificate.pem").exists()


def test_a_folder_with_another_s_request_is_told_of_both(asked: Owners) -> None:
    asked.provision()
    shutil.copy(asked.post / "site-2.request", asked.at("site-1"))
    said = refusal("accept", asked.at("site-1"), asked.answers / "site-1.answer")
    assert "several requests: site-1.request and site-2.request" in said


def lying(owners: Owners, name: str, **changes: object) -> Path:
    """An answer with something else in it, signed by the true authority."""
    import msgspec

    path = owners.answers / f"{name}.answer"
    answer = msgspec.structs.replace(read_answer(path.read_bytes(), source=""), **changes)
    pair = Authority(owners.answers / "authority", "tiny").pair
    path.write_bytes(sign_answer(pair, answer))
    return path


def refused_answer(owners: Owners, name: str) -> str:
    """Nothing has changed but the log of acts, which has the refusal."""

    def files() -> dict[Path, bytes]:
        kept = (f for f in folder.rglob("*") if f.is_file() and not f.name.startswith(FILE))
        return {f: f.read_bytes() for f in kept}

    folder = owners.at(name)
    before = files()
    said = refusal("accept", folder, owners.answers / f"{name}.answer")
    assert files() == before
    last = ActLog(folder).notes()[-1]
    assert (last.act, last.what) == ("accept", "refused")
    return said


def test_a_certificate_of_another_key_is_refused(asked: Owners) -> None:
    asked.provision()
    authority = Authority(asked.answers / "authority", "tiny")
    other = authority.certify_key(new_key().public_key(), "site", "site-1").decode()
    lying(asked, "site-1", certificate=other)
    assert "certifies another key" in refused_answer(asked, "site-1")
    # Of a party's own key, in another's name, or by an authority that is not the one named.
    from fmfl_secure.provisioning.own_keys import own_request

    key = own_request(asked.at("site-1")).read.request.tls_key
    lying(asked, "site-1", certificate=authority.certify_key(key, "site", "site-2").decode())
    assert "names another party" in refused_answer(asked, "site-1")
    strange = Authority.open(asked.folder / "strange", "tiny", [])
    made = strange.certify_key(key, "site", "site-1").decode()
    lying(asked, "site-1", certificate=made)
    assert "not of the authority" in refused_answer(asked, "site-1")


def test_an_answer_for_another_party_or_altered_on_the_way_is_refused(asked: Owners) -> None:
    asked.provision()
    for_another = asked.answers / "site-2.answer"
    said = refusal("accept", asked.at("site-1"), for_another)
    assert "answer for the site site-2" in said
    assert not (asked.at("site-1") / "members.json").exists()
    alter(asked.answers / "site-1.answer", lambda d: d["answer"].update(url="https://evil:1"))
    assert "not signed by the authority" in refused_answer(asked, "site-1")
    (asked.answers / "site-1.answer").write_text("{}")
    assert "is no answer" in refused_answer(asked, "site-1")


def test_another_key_in_this_party_s_place_is_refused(asked: Owners) -> None:
    asked.provision()
    answer = read_answer((asked.answers / "site-1.answer").read_bytes(), source="")
    members = json.loads(answer.members)
    members["sites"]["site-1"] = Identity.generate("site-1").public.text
    lying(asked, "site-1", members=json.dumps(members))
    assert "another identity key for site-1" in refused_answer(asked, "site-1")
    members = json.loads(answer.members)
    members["sites"]["site-9"] = members["sites"].pop("site-3")
    lying(asked, "site-1", members=json.dumps(members))
    assert "other parties than its settings" in refused_answer(asked, "site-1")
    members = json.loads(answer.members)
    members["sites"]["site-3"] = members["sites"]["site-2"]
    lying(asked, "site-1", members=json.dumps(members))
    assert "two parties in the answer have one" in refused_answer(asked, "site-1")


def test_a_key_put_in_another_s_place_is_found_by_voice(asked: Owners) -> None:
    """The provisioner shows site-1 a key of its own as site-2's; nothing in the answer can tell."""
    asked.provision()
    answer = read_answer((asked.answers / "site-1.answer").read_bytes(), source="")
    members = json.loads(answer.members)
    members["sites"]["site-2"] = Identity.generate("site-2").public.text
    lying(asked, "site-1", members=json.dumps(members))
    for name in ("server", "decryptor", *SITES):
        asked.accept(name)
    read = asked.fingerprint("site-2")
    said = refusal(
        "ceremony", "sign", asked.at("site-1"), "--heard-from", "site-2", answer=f"{read}\n"
    )
    assert "not this party's fingerprint" in said
    with pytest.raises(ServiceError, match="have not compared"):
        require_comparison(asked.at("site-1"))
    # People who do not listen, and sign what they see themselves, are found by the others.
    own = asked.fingerprint("site-1")
    typed("ceremony", "sign", asked.at("site-1"), "--heard-from", "site-2", "--heard", own)
    (record,) = (asked.at("site-1") / "ceremony").glob("*.json")
    said = refusal("ceremony", "collect", asked.at("site-3"), record)
    assert "they differ in: site-2" in said
    assert "site-1" in standing(asked.at("site-3")).missing


def test_another_authority_is_found_by_voice(asked: Owners) -> None:
    asked.provision()
    first = {name: (asked.answers / f"{name}.answer").read_bytes() for name in ("site-1", "site-2")}
    shutil.rmtree(asked.answers)
    asked.provision()  # somebody between them and the office, with an authority of its own
    (asked.answers / "site-1.answer").write_bytes(first["site-1"])
    asked.accept("site-1")
    asked.accept("site-2")
    assert asked.fingerprint("site-1") != asked.fingerprint("site-2")
    (asked.answers / "site-2.answer").write_bytes(first["site-2"])
    assert "of another authority" in refused_answer(asked, "site-2")


@pytest.mark.parametrize("what", ["signature", "party", "nobody", "self"])
def test_a_comparison_that_its_party_did_not_sign_is_refused(owners: Owners, what: str) -> None:
    site = owners.at("site-1")
    (path,) = owners.post.glob("site-2-*.json")
    if what == "self":
        read = owners.fingerprint("site-1")
        said = refusal("ceremony", "sign", site, "--heard-from", "site-1", "--heard", read)
        assert "no other party" in said
        return
    changes: dict[str, Callable[[dict], None]] = {
        "signature": lambda d: d["compared"].update(at="2026-01-01"),
        "party": lambda d: d["compared"].update(party="site-3"),
        "nobody": lambda d: d["compared"].update(party="../x"),
    }
    alter(path, changes[what])
    assert "not signed with the key" in refusal("ceremony", "collect", site, path)


def test_a_certificate_is_renewed_with_a_key_that_the_party_draws(owners: Owners) -> None:
    folder = owners.at("site-2")
    before = (folder / "tls/key.pem").read_bytes()
    early = (owners.post / "site-2.request").read_bytes()
    owners.renew("site-2")
    assert (folder / "tls/key.pem").read_bytes() == before
    client_context(folder / "tls")  # the old ones serve until there is an answer
    said = owners.provision()
    assert "a certificate for the site site-2" in said
    assert "site-1 " not in said.replace("site-1.answer", "")
    owners.accept("site-2")
    assert (folder / "tls/key.pem").read_bytes() != before
    assert not (folder / "renewal").exists()
    client_context(folder / "tls")
    require_comparison(folder)  # identities are as they were
    revoke(owners.answers, "site-2", keep_last=True)
    # The first request, sent again by somebody who found the old key, brings it no certificate.
    (owners.post / "site-2.request").write_bytes(early)
    said = refusal(
        "provision", owners.settings, "--requests", owners.post, "--output", owners.answers
    )
    assert "answer to a later request" in said


def test_a_site_is_added_and_everybody_compares_its_key(owners: Owners) -> None:
    text = owners.settings.read_text()
    owners.settings.write_text(f'{text}\n[[sites]]\nname = "site-4"\npopulation = 40\n')
    owners.request("site-4")
    assert "a certificate for the site site-4" in owners.provision()
    said = owners.accept("server", answer="y\ny\n")
    assert "a member with a new key: site-4" in said
    assert "membership list 2 is signed" in said
    owners.accept("site-4")
    fetch = lists_of(owners)
    follow_removals(MembershipFolder(owners.at("site-4")), 2, fetch)
    assert len(MembershipFolder(owners.at("site-4")).lists()) == 2
    # A site that had met no server yet takes its first list, and its people approve the second.
    first = MembershipFolder(owners.at("site-1"))
    with pytest.raises(NotApproved, match="brings site-4"):
        follow_removals(first, 2, fetch)
    assert len(first.lists()) == 1
    require_comparison(owners.at("site-1"))
    first.approve(MembershipFolder(owners.at("server")).lists()[1])
    with pytest.raises(ServiceError, match="have not compared"):
        require_comparison(owners.at("site-1"))
    owners.accept("site-1", answer="y\n")
    read = owners.fingerprint("site-4")
    typed("ceremony", "sign", owners.at("site-1"), "--heard-from", "site-4", "--heard", read)
    require_comparison(owners.at("site-1"))


def test_a_first_list_with_anybody_that_was_not_pinned_is_refused(owners: Owners) -> None:
    """The coordinator signs a list of its own making before a site has held any."""
    site, server = owners.at("site-1"), owners.at("server")
    members = MembershipFolder(site).members()
    coordinator = Identity.load(server / "coordinator/identity.pem", "coordinator")
    strange = Identity.generate("site-2").public
    for sites in (
        {**members.sites, "site-2": strange},
        {**members.sites, "site-9": Identity.generate("site-9").public},
        {name: each for name, each in members.sites.items() if name != "site-3"},
    ):
        lie = next_list(coordinator, None, federation="tiny", members=replace(members, sites=sites))
        lists = [base64.b64encode(lie).decode()]
        with pytest.raises(ConfigError, match="no list of the coordinator's"):
            follow_removals(MembershipFolder(site), 1, lambda _, lists=lists: lists)
        assert MembershipFolder(site).lists() == []
    follow_removals(MembershipFolder(site), 1, lists_of(owners))
    assert len(MembershipFolder(site).lists()) == 1


def test_a_site_that_left_needs_no_new_comparison_and_does_not_come_back(owners: Owners) -> None:
    typed("members", "remove", owners.at("server"), "site-3")
    site = owners.at("site-1")
    follow_removals(MembershipFolder(site), 2, lists_of(owners))
    assert "site-3" not in MembershipFolder(site).members().sites
    require_comparison(site)
    owners.provision()
    with pytest.raises(AssertionError, match="revoked key"):
        owners.accept("server", answer="y\n")


def test_a_new_identity_is_signed_for_by_the_old_one_or_asked_about(owners: Owners) -> None:
    old = Identity.load(owners.at("site-2") / "identity.pem").public
    owners.renew("site-2", "--new-identity")
    alter(owners.post / "site-2.request", lambda d: d.update(previous_signature="00" * 64))
    words = ("provision", owners.settings, "--requests", owners.post, "--output", owners.answers)
    assert "may pose as site-2" in refusal(*words)
    shutil.copy(owners.at("site-2") / "renewal/site-2.request", owners.post)
    owners.provision()
    owners.accept("server", answer="y\n")
    said = owners.accept("site-2")
    # The command that it names lets the ledger's custodian, the old identity, admit the new one.
    (command,) = re.findall(r"fmfl-secure (ledger admit .*)$", said, flags=re.MULTILINE)
    typed(*shlex.split(command))
    new = Identity.load(owners.at("site-2") / "identity.pem").public
    assert new != old
    signers = Ledger(owners.at("site-2") / "ledger.sqlite").budget().signers
    assert [each.key for each in signers] == [old.key.hex(), new.key.hex()]
    server = MembershipFolder(owners.at("server"))
    assert server.members().sites["site-2"] == new
    other = MembershipFolder(owners.at("site-1"))
    with pytest.raises(NotApproved, match="brings site-2"):
        follow_removals(other, 2, lists_of(owners))
    said = refusal("request", owners.at("decryptor"), "--renew", "--new-identity")
    assert "keeps its identity" in said
    # Lost keys: nobody can sign for the new one, and whoever provisions says that it asked.
    typed("request", owners.folder / "anew", "--federation", owners.settings, "--name", "site-3")
    shutil.copy(owners.folder / "anew/site-3.request", owners.post)
    assert "may pose as site-3" in refusal(*words)
    owners.provision("--replace", "site-3")


def altered(data: bytes, generator: random.Random) -> bytes:
    """One byte changed, left out or put in, or a piece repeated."""
    at = generator.randrange(len(data))
    return generator.choice(
        [
            data[:at] + bytes([generator.randrange(256)]) + data[at + 1 :],
            data[:at] + data[at + 1 :],
            data[:at] + bytes([generator.randrange(256)]) + data[at:],
            data[:at] + data[at // 2 :],
            data[:at],
        ]
    )


@pytest.mark.parametrize("kind", ["request", "answer", "comparison"])
def test_whatever_arrives_is_what_was_sent_or_a_typed_refusal(template: Owners, kind: str) -> None:
    site = template.at("site-1")
    path = {
        "request": template.post / "site-2.request",
        "answer": template.answers / "site-1.answer",
        "comparison": next(template.post.glob("site-2-*.json")),
    }[kind]
    read = {
        "request": lambda data: read_request(data, federation="tiny", source="x").request,
        "answer": lambda data: read_answer(data, source="x"),
        "comparison": lambda data: collect(site, data, source="x"),
    }[kind]
    sent, generator = path.read_bytes(), random.Random(7)
    first, refused = read(sent), 0
    for _ in range(200):
        try:
            assert read(altered(sent, generator)) == first
        except ServiceError:
            refused += 1
    assert refused > 150


@pytest.mark.parametrize("url", ["http://plain.example.org", "https://", "https://ü.example.org"])
def test_a_server_is_reached_where_a_certificate_can_say(asked: Owners, url: str) -> None:
    words = ("--federation", asked.settings, "--role", "server", "--url", url)
    assert refusal("request", asked.folder / "again", *words)
    assert not (asked.folder / "again").exists()


def test_kits_whose_keys_were_drawn_for_all_say_so_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(settings(Path("model"), sites=3, evaluation=False))
    said = typed("provision", path, "--output", tmp_path / "kits")
    assert "A SIMULATION" in said
    for name in ("server", "decryptor", "site-1"):
        kit = tmp_path / "kits" / name
        assert "drawn in one place" in (kit / "SIMULATION.txt").read_text()
        (found,) = examine_keys(kit)
        assert found.state == "question"
        assert "A SIMULATION" in found.found
        require_comparison(kit)
    assert keys_record(tmp_path / "kits/server").one_place
    assert list(examine_keys(tmp_path)) == []


def test_certificates_name_party_and_role(template: Owners) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    for name in PARTIES:
        pem = (template.at(name) / "tls/certificate.pem").read_bytes()
        certificate = x509.load_pem_x509_certificate(pem)
        peer = read_peer(certificate.public_bytes(Encoding.DER))
        role = {"board": "custodian"}.get(name, "site" if name in SITES else name)
        assert (peer.federation, peer.role, peer.name) == ("tiny", role, name)
    assert new_authority("tiny").certificate != (template.at("board") / "tls/ca.pem").read_bytes()

"""Provisioning: one kit a party, sealed or not; renewal, revocation and removal."""

from __future__ import annotations

import json
import shutil
import stat
import tomllib
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec
import pytest
from support import settings

from aggregation import AggregationError, Identity, PublicIdentity
from fmfl_secure.errors import ConfigError, ServiceError
from fmfl_secure.parties.membership import MembershipFolder, next_list
from fmfl_secure.parties.workspace import Members
from fmfl_secure.provisioning.authority import issued, renew, revoke
from fmfl_secure.provisioning.certificates import read_peer, revoked_serials, serial_of
from fmfl_secure.provisioning.kit import Kit, open_kit, seal_kit
from fmfl_secure.provisioning.own_keys import request_keys
from fmfl_secure.provisioning.provision import provision, remove_site, seal_kits
from fmfl_secure.provisioning.service_toml import client_toml, operations_port, server_toml
from fmfl_secure.settings.federation import load_custodian, load_federation, load_site
from fmfl_secure.settings.service import ClientSettings, ServerSettings, load_settings
from fmfl_secure.storage.files import write_files
from fmfl_secure.transports.https.tls import client_context, server_context
from privacy import Ledger

NAMES = ("site-1", "site-2", "site-3")
URL = "https://fl.example.org:8443"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase's cost is the same arithmetic at any size."""
    monkeypatch.setattr("fmfl_secure.provisioning.kit._LOG2_N", 10)


def write_federation(folder: Path, *, sites: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "federation.toml"
    path.write_text(settings(Path("model"), sites=sites, evaluation=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("provision")
    provision(write_federation(folder), folder / "kits", url=URL)
    return folder


@pytest.fixture
def kits(tmp_path: Path, template: Path) -> Path:
    shutil.copytree(template, tmp_path / "copy")
    return tmp_path / "copy/kits"


def secrets_of(folder: Path) -> set[bytes]:
    public = {"ca.pem", "certificate.pem", "revoked.pem"}
    found = (*folder.rglob("*.pem"), *folder.rglob("*.key"), *folder.rglob("*.token"))
    return {file.read_bytes() for file in found if file.name not in public}


def test_every_party_has_a_kit_that_works(kits: Path) -> None:
    federation = load_federation(kits.parent / "federation.toml")
    for name in ("server", "decryptor", *NAMES):
        kit = Kit(kits / name)
        assert load_federation(kit.federation_file) == federation
        assert kit.membership.members().sites.keys() == set(NAMES)
        assert len(kit.operations_token()) > 30
        if name == "server":
            assert load_settings(kit.service_file, ServerSettings).listen.port == 8443
            server_context(kit.tls)
        else:
            assert load_settings(kit.service_file, ClientSettings).server.url == URL
            client_context(kit.tls)
    for name in NAMES:
        folder = kits / name
        identity = Identity.load(folder / "identity.pem", name)
        assert Kit(folder).membership.members().sites[name] == identity.public
        assert load_site(folder / "site.toml").data.path == "data/train.csv"
        assert Ledger(folder / "ledger.sqlite").budget().public_key == identity.public.key
        assert MembershipFolder(folder).lists() == MembershipFolder(kits / "server").lists()


def test_no_kit_holds_another_party_s_secret(kits: Path) -> None:
    secrets = {f.name: secrets_of(f) for f in kits.iterdir()}
    assert set(secrets) == {"authority", "server", "decryptor", *NAMES}
    for name, own in secrets.items():
        assert own
        for other, theirs in secrets.items():
            assert name == other or not own & theirs


def test_whoever_drew_all_keys_signs_as_any_site(kits: Path) -> None:
    """The arm in which it works, as in all of 0.1.0: nobody can tell them apart."""
    members = MembershipFolder(kits / "server").members()
    for name in NAMES:
        by_the_provisioner = Identity.load(kits / name / "identity.pem", name)
        members.sites[name].verify(by_the_provisioner.sign(b"a verdict"), b"a verdict")


def test_kits_are_for_their_owner_only(kits: Path) -> None:
    for name in ("authority", "server", "decryptor", *NAMES):
        for file in (kits / name).rglob("*"):
            if file.suffix in {".pem", ".key", ".token"} and file.parent.name != "tls":
                public = file.name in {"ca.pem", "revoked.pem"}
                assert public or not file.stat().st_mode & 0o077, file
        assert not stat.S_IMODE((kits / name).stat().st_mode) & 0o077
        if name != "authority":
            assert not (kits / name / "tls/key.pem").stat().st_mode & 0o077


def test_certificates_name_party_and_role(kits: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    for name, role in (("server", "server"), ("decryptor", "decryptor"), ("site-2", "site")):
        pem = (kits / name / "tls/certificate.pem").read_bytes()
        certificate = x509.load_pem_x509_certificate(pem)
        peer = read_peer(certificate.public_bytes(Encoding.DER))
        assert (peer.federation, peer.role, peer.name) == ("tiny", role, name)
    hosts = certificate_hosts(kits / "server/tls/certificate.pem")
    assert hosts == ["fl.example.org", "localhost"]
    assert certificate_hosts(kits / "site-1/tls/certificate.pem") == []


def certificate_hosts(path: Path) -> list[str]:
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)


def test_provisioning_again_changes_nothing(kits: Path) -> None:
    before = {f: f.read_bytes() for f in kits.rglob("*") if f.is_file()}
    assert provision(kits.parent / "federation.toml", kits, url=URL) == []
    assert {f: f.read_bytes() for f in kits.rglob("*") if f.is_file()} == before


def test_a_new_site_gets_its_kit_and_the_others_have_to_approve(kits: Path) -> None:
    shutil.move(kits / "site-2", kits.parent / "gone to site 2")
    write_federation(kits.parent, sites=4)
    made = provision(kits.parent / "federation.toml", kits, url=URL)
    assert any("site-4" in line for line in made)
    assert not (kits / "site-2").exists(), "a kit that was handed out is not made again"
    server, new = MembershipFolder(kits / "server"), MembershipFolder(kits / "site-4")
    assert len(server.lists()) == 2
    assert new.lists() == server.lists()
    assert new.members() == server.members()
    old = MembershipFolder(kits / "site-1")
    change = old.change(server.lists()[1])
    assert [party.name for party in change.added] == ["site-4"]
    assert "site-4" not in old.members().sites
    old.approve(server.lists()[1])
    assert old.members() == server.members()


def test_a_sealed_kit_opens_with_its_passphrase_only_and_once(kits: Path, tmp_path: Path) -> None:
    before = {
        f.relative_to(kits / "site-1"): f.read_bytes()
        for f in (kits / "site-1").rglob("*")
        if f.is_file()
    }
    secrets = secrets_of(kits / "site-1")
    sealed = seal_kits(kits, passphrase=lambda name: f"a passphrase of {name}")
    assert len(sealed) == 5
    assert not (kits / "site-1").exists()
    data = (kits / "site-1.kit").read_bytes()
    assert not any(line in data for secret in secrets for line in secret.splitlines())
    with pytest.raises(ServiceError, match="does not open"):
        open_kit(data, "a passphrase of site-2", tmp_path / "x")
    with pytest.raises(ServiceError, match="does not open"):
        open_kit(data[:-1] + bytes([data[-1] ^ 1]), "a passphrase of site-1", tmp_path / "x")
    with pytest.raises(ServiceError, match="no sealed kit"):
        open_kit(b"something else", "a passphrase of site-1", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    open_kit(data, "a passphrase of site-1", tmp_path / "opened")
    after = {
        f.relative_to(tmp_path / "opened"): f.read_bytes()
        for f in (tmp_path / "opened").rglob("*")
        if f.is_file()
    }
    assert after == before
    assert not any(f.stat().st_mode & 0o077 for f in (tmp_path / "opened").rglob("*"))
    with pytest.raises(ServiceError, match="exists"):
        open_kit(data, "a passphrase of site-1", tmp_path / "opened")


def test_a_kit_writes_nothing_outside_of_its_folder(tmp_path: Path) -> None:
    from fmfl_secure.provisioning import kit as module

    folder = tmp_path / "kit"
    folder.mkdir()
    (folder / "a").write_bytes(b"x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.msgspec.msgpack, "encode", lambda _: EVIL)
        data = seal_kit(folder, "a long passphrase")
    with pytest.raises(ServiceError, match="outside"):
        open_kit(data, "a long passphrase", tmp_path / "out")
    assert not (tmp_path / "evil").exists()


EVIL = msgspec.msgpack.encode([{"path": "../evil", "data": b"x"}])


def test_a_short_passphrase_is_refused(kits: Path) -> None:
    with pytest.raises(ServiceError, match="at least 12"):
        seal_kit(kits / "site-1", "short")


def test_renewal_and_revocation(kits: Path) -> None:
    old = serial_of((kits / "site-1/tls/certificate.pem").read_bytes())
    assert renew(kits, "site-1") == kits / "site-1/tls"
    new = serial_of((kits / "site-1/tls/certificate.pem").read_bytes())
    assert new != old
    client_context(kits / "site-1/tls")
    path = revoke(kits, "site-1", keep_last=True)
    authority = (kits / "authority/ca.pem").read_bytes()
    assert path == kits / "server/revoked.pem"
    assert revoked_serials(path.read_bytes(), authority) == {old}
    revoke(kits, "site-1")
    assert revoked_serials(path.read_bytes(), authority) == {old, new}
    states = [c.revoked for c in issued(kits) if c.name == "site-1"]
    assert states == [True, True]
    with pytest.raises(ServiceError, match="no certificate to revoke"):
        revoke(kits, "site-1")
    with pytest.raises(ServiceError, match="has no certificate"):
        renew(kits, "site-9")
    shutil.rmtree(kits / "site-2")
    assert renew(kits, "site-2") == kits / "renewed/site-2/tls"
    with pytest.raises(ServiceError, match="not signed by this authority"):
        revoked_serials(path.read_bytes(), (kits / "site-3/tls/certificate.pem").read_bytes())


def test_a_site_is_removed_by_a_signed_list_that_others_can_follow(kits: Path) -> None:
    assert remove_site(Kit(kits / "server"), "site-3") == 2
    server, site = MembershipFolder(kits / "server"), MembershipFolder(kits / "site-1")
    assert set(server.members().sites) == {"site-1", "site-2"}
    change = site.change(server.lists()[1])
    assert (change.added, change.removed) == ((), ("site-3",))
    with pytest.raises(ConfigError, match="not among"):
        remove_site(Kit(kits / "server"), "site-3")


def test_a_list_that_skips_forges_or_forgets_is_refused(kits: Path) -> None:
    remove_site(Kit(kits / "server"), "site-3")
    server, site = MembershipFolder(kits / "server"), MembershipFolder(kits / "site-1")
    everyone = site.members()
    coordinator = Identity.load(kits / "server/coordinator/identity.pem", "coordinator")
    third = next_list(coordinator, server.last(), federation="tiny", members=server.members())
    with pytest.raises(AggregationError, match="not the next"):
        site.approve(third)
    with pytest.raises(AggregationError, match="revoked"):
        next_list(coordinator, server.last(), federation="tiny", members=everyone)
    stranger = Identity.generate("coordinator")
    forged = next_list(stranger, None, federation="tiny", members=everyone)
    with pytest.raises(AggregationError):
        site.approve(forged)
    assert len(site.lists()) == 1


def test_a_custodian_has_a_kit_of_its_own_from_the_start(kits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with"
    path = write_federation(folder)
    named = '\n[aggregation]\ncustodians = ["board"]\n'
    path.write_text(path.read_text(encoding="utf-8") + named, encoding="utf-8")
    made = provision(path, folder / "kits", url=URL)
    assert any("board" in line for line in made)
    kit = Kit(folder / "kits/board")
    identity = Identity.load(kit.folder / "identity.pem", "board")
    for party in ("server", "decryptor", "board", *NAMES):
        held = Kit(folder / "kits" / party).membership
        assert held.members().custodians == {"board": identity.public}
        assert len(held.lists()) == 1
    assert load_custodian(kit.folder / "custodian.toml").policy.min_sites == 3
    assert [c.role for c in issued(folder / "kits") if c.name == "board"] == ["custodian"]
    client_context(kit.tls)
    assert not (folder / "kits/site-1/custodian.toml").exists()
    assert not secrets_of(kit.folder) & secrets_of(folder / "kits/decryptor")
    # Parties that hold a kit already have not pinned one that comes later.
    late = kits.parent / "federation.toml"
    late.write_text(late.read_text(encoding="utf-8") + named, encoding="utf-8")
    with pytest.raises(ServiceError, match="board cannot become a custodian"):
        provision(late, kits, url=URL)


def test_a_site_without_its_data_does_not_join(kits: Path) -> None:
    """It would be charged for a round before it learned that there is nothing to read."""
    from fmfl_secure.transports.https.processes.site import SiteProcess

    with pytest.raises(ConfigError, match=r"site-1/data/train\.csv does not exist") as refusal:
        SiteProcess(Kit(kits / "site-1"))
    assert "site.toml" in refusal.value.hint


def test_settings_are_strict(kits: Path) -> None:
    path = kits / "server/service.toml"
    path.write_text("[listen]\nprot = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="prot"):
        load_settings(path, ServerSettings)
    client = kits / "site-1/service.toml"
    client.write_text('[server]\nurl = "http://plain.example.org"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="url"):
        load_settings(client, ClientSettings)
    client.unlink()
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(client, ClientSettings)


def test_a_key_that_others_may_read_is_refused(kits: Path) -> None:
    (kits / "site-1/tls/key.pem").chmod(0o644)
    with pytest.raises(ServiceError, match="others may read"):
        client_context(kits / "site-1/tls")
    (kits / "site-1/operations.token").chmod(0o644)
    with pytest.raises(ServiceError, match="others may read"):
        Kit(kits / "site-1").operations_token()


@pytest.mark.parametrize(
    "token", [b"", b"\n", b"short\n", b"\xff" * 40, b"two words of a passphrase\n"]
)
def test_a_port_is_opened_by_no_token_that_anybody_can_guess(kits: Path, token: bytes) -> None:
    (kits / "site-1/operations.token").write_bytes(token)
    with pytest.raises(ServiceError, match="holds no token") as refused:
        Kit(kits / "site-1").operations_token()
    assert "openssl rand" in refused.value.hint


WRONG_URLS = (
    "", "foo", "http://h", "https://", "https://:1", "https://h:abc", "https://h:0",
    "https://h:65536", "https://h/x", "https://h?x", "https://h#x", "https://u:p@h", "https://a b",
    "https://\u00fc.example", f"https://{'a' * 64}.b", f"https://{'abcdefghi.' * 26}b", "https://[::1",
    "https://[:::]", "https://999.1.1.1", "https://h\n",
)  # fmt: skip


@pytest.mark.parametrize("url", WRONG_URLS)
def test_where_no_server_can_be_is_refused_wherever_it_is_said(
    url: str, kits: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="where a server can be reached"):
        provision(kits.parent / "federation.toml", tmp_path / "others", url=url)
    assert not (tmp_path / "others").exists()
    with pytest.raises(ServiceError):
        request_keys(tmp_path / "own", kits.parent / "federation.toml", role="server", url=url)
    assert not (tmp_path / "own").exists()
    client = kits / "site-1/service.toml"
    client.write_text(f"[server]\nurl = {json.dumps(url)}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"server\.url"):
        load_settings(client, ClientSettings)


@pytest.mark.parametrize(
    "url", ["https://h", "https://[::1]:8443", "https://10.0.0.1:65535", "https://a_b.c-d.e:1"]
)
def test_where_a_server_can_be_is_taken(url: str, kits: Path) -> None:
    client = kits / "site-1/service.toml"
    client.write_text(f"[server]\nurl = {json.dumps(url)}\n", encoding="utf-8")
    assert httpx.URL(load_settings(client, ClientSettings).server.url).host


@pytest.mark.parametrize("file", ["ca.pem", "ca.key", "issued.json"])
@pytest.mark.parametrize("how", ["gone", "empty", "junk", "folder", "nested"])
def test_an_authority_that_is_not_whole_is_said_to_be_and_left_as_it_is(
    kits: Path, file: str, how: str
) -> None:
    path = kits / "authority" / file
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes({"empty": b"", "junk": b"\xff\x00", "nested": b"[" * 100_000}[how])
    kept = issued_text(kits)
    for act in (lambda: renew(kits, "site-1"), lambda: revoke(kits, "site-1")):
        with pytest.raises((ServiceError, OSError)) as refused:
            act()
        assert getattr(refused.value, "hint", "Check the path")
    shutil.rmtree(kits / "site-1")
    late = write_federation(kits.parent, sites=4)
    with pytest.raises((ServiceError, OSError)):
        provision(late, kits, url=URL)
    assert issued_text(kits) == kept, "nothing is issued, revoked or begun anew"
    assert not (kits / "site-4").exists()


def issued_text(kits: Path) -> bytes:
    path = kits / "authority/issued.json"
    return path.read_bytes() if path.is_file() else b""


def test_an_authority_that_died_before_it_had_a_key_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "kits/authority"
    folder.mkdir(parents=True)
    (folder / "issued.json").write_text("[]\n")
    (folder / "ca.pem").write_text("of no use")
    provision(write_federation(tmp_path), tmp_path / "kits", url=URL)
    assert len(issued(tmp_path / "kits")) == 5


def test_no_site_is_named_like_a_folder_of_the_kits(tmp_path: Path) -> None:
    path = write_federation(tmp_path)
    path.write_text(path.read_text().replace('"site-1"', '"authority"'), encoding="utf-8")
    with pytest.raises(ConfigError, match="authority"):
        provision(path, tmp_path / "kits")


def test_members_are_read_again_once_their_file_was_replaced_and_not_before(
    kits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = MembershipFolder(kits / "server")
    first, real, reads = folder.members(), Members.load, []
    monkeypatch.setattr(Members, "load", lambda path: reads.append(path) or real(path))
    assert folder.members() == first
    assert reads == []
    # Another file of the very same length: two sites have changed their keys.
    one, two = first.sites["site-1"], first.sites["site-2"]
    crossed = {
        "site-1": PublicIdentity.parse("site-1", two.text),
        "site-2": PublicIdentity.parse("site-2", one.text),
    }
    swapped = replace(first, sites=first.sites | crossed)
    write_files(kits / "server", {"members.json": swapped.encode()})
    assert folder.members().sites["site-1"].key == two.key
    assert folder.members() == folder.members()
    assert len(reads) == 1
    (kits / "server/members.json").unlink()
    with pytest.raises(ConfigError, match="cannot read the members"):
        folder.members()


def test_every_party_s_page_has_a_port_of_its_own_by_default(tmp_path: Path) -> None:
    """Several parties on one machine, as in a simulation, have a page each."""
    file = tmp_path / "federation.toml"
    file.write_text(settings(Path("none"), sites=5, aggregation='custodians = ["a", "b"]'))
    config = load_federation(file)
    names = ["decryptor", "a", "b", *(entry.name for entry in config.sites)]
    texts = [client_toml(URL, operations_port(config, name)) for name in names]
    ports = [tomllib.loads(text)["operations"]["port"] for text in [server_toml(8443), *texts]]
    assert ports[:2] == [9443, 9444]
    assert len(set(ports)) == len(names) + 1


def test_settings_are_read_as_often_however_many_sites_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the time to provision grows with the square of the sites: reading them lists all."""
    read: list[int] = []

    def counted(text: str):
        found = tomllib_loads(text)
        read[-1] += "federation" in found
        return found

    tomllib_loads = tomllib.loads
    monkeypatch.setattr(tomllib, "loads", counted)
    for sites in (3, 5):
        read.append(0)
        folder = tmp_path / str(sites)
        provision(write_federation(folder, sites=sites), folder / "kits", url=URL)
    few, more = read
    assert 0 < few == more

import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aggregation import Identity, IdentityError, PublicIdentity, SignatureError


def test_save_and_load(tmp_path):
    identity = Identity.generate("hospital-a")
    path = tmp_path / "key.pem"
    identity.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = Identity.load(path)
    assert loaded.public == identity.public
    assert Identity.load(path, "other").public.name == "other"
    loaded.public.verify(identity.sign(b"x"), b"x")


def test_an_existing_file_is_never_overwritten(tmp_path):
    path = tmp_path / "key.pem"
    path.write_text("mine")
    with pytest.raises(IdentityError):
        Identity.generate("a").save(path)
    assert path.read_text() == "mine"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityError):
        Identity.generate("a").save(link)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_file_others_may_use_is_refused(tmp_path, mode):
    path = tmp_path / "key.pem"
    Identity.generate("a").save(path)
    path.chmod(mode)
    with pytest.raises(IdentityError, match="chmod 600"):
        Identity.load(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(IdentityError):
        Identity.load(tmp_path / "missing")
    path = tmp_path / "junk"
    path.write_bytes(b"junk")
    path.chmod(0o600)
    with pytest.raises(IdentityError, match="PKCS #8"):
        Identity.load(path)
    pem = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(pem)
    with pytest.raises(IdentityError, match="Ed25519"):
        Identity.load(path)


def test_a_plain_pem_file_needs_a_name(tmp_path):
    path = tmp_path / "key.pem"
    Identity.generate("a").save(path)
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    with pytest.raises(IdentityError, match="pass a name"):
        Identity.load(path)
    assert Identity.load(path, "a").public.name == "a"


def test_text_round_trip():
    public = Identity.generate("a").public
    assert public.text.startswith("ed25519:")
    assert PublicIdentity.parse("a", public.text) == public
    assert public.fingerprint.startswith("ed25519:")
    assert len(public.fingerprint) == len("ed25519:") + 64


@pytest.mark.parametrize("text", ["", "rsa:AAAA", "ed25519:***", "ed25519:AAAA", "ed25519:é"])
def test_text_that_is_no_key_is_refused(text):
    with pytest.raises(IdentityError):
        PublicIdentity.parse("a", text)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "é", "a" * 65, "a\n"])
def test_names(name):
    with pytest.raises(IdentityError):
        Identity.generate(name)


def test_signatures():
    identity, other = Identity.generate("a"), Identity.generate("b")
    signature = identity.sign(b"data")
    identity.public.verify(signature, b"data")
    for public, sig, data in (
        (other.public, signature, b"data"),
        (identity.public, signature, b"date"),
        (identity.public, signature[:-1], b"data"),
        (identity.public, bytes(64), b"data"),
    ):
        with pytest.raises(SignatureError):
            public.verify(sig, data)


def test_the_private_key_does_not_show():
    identity = Identity.generate("a")
    assert repr(identity) == "Identity('a')"
    assert not hasattr(identity, "__dict__")
    with pytest.raises(TypeError):
        identity.__reduce__()


PASSPHRASE = "correct horse battery"


def test_a_sealed_key_opens_with_its_passphrase_only(tmp_path):
    path = tmp_path / "key"
    identity = Identity.generate("site-a")
    identity.save(path, passphrase=PASSPHRASE)
    path.chmod(0o644)  # sealed, so others may read it
    loaded = Identity.load(path, passphrase=PASSPHRASE)
    assert loaded.public == identity.public
    assert loaded.sign(b"x") == identity.sign(b"x")
    with pytest.raises(IdentityError, match="passphrase"):
        Identity.load(path)
    with pytest.raises(IdentityError, match="does not open"):
        Identity.load(path, passphrase=PASSPHRASE + "!")
    with pytest.raises(IdentityError, match="another party"):
        Identity.load(path, "site-b", passphrase=PASSPHRASE)
    assert identity._key.private_bytes_raw() not in path.read_bytes()


def test_a_sealed_key_that_was_changed_does_not_open(tmp_path):
    path = tmp_path / "key"
    Identity.generate("site-a").save(path, passphrase=PASSPHRASE)
    good = path.read_bytes()
    lines = good.split(b"\n")
    for wrong in (
        good.replace(b"site-a", b"site-b"),
        good.replace(lines[2][:4], b"AAAA", 1),  # the version
        good.replace(lines[2], lines[2][:-8] + b"AAAAAAA="),
        good.replace(lines[2], b"%%%"),
        good.replace(lines[3], b""),
    ):
        path.write_bytes(wrong)
        with pytest.raises(IdentityError):
            Identity.load(path, passphrase=PASSPHRASE)


def test_a_short_passphrase_is_refused(tmp_path):
    with pytest.raises(IdentityError, match="at least 8"):
        Identity.generate("a").save(tmp_path / "key", passphrase="short")

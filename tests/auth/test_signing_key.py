"""Tokens that the server signs itself."""

import stat
import time

import pytest

from rpcshare.auth.caller import Scope
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.secret_files import SecretFileError
from rpcshare.auth.signed_tokens import SignedTokenVerifier
from rpcshare.auth.signing_key import SigningKey
from rpcshare.errors import ErrorCode, ShareError
from support.token_issuer import make_key, pem


@pytest.fixture
def key(tmp_path):
    return SigningKey.kept(None, tmp_path)


async def caller(key: SigningKey, token: str):
    return await SignedTokenVerifier([key.issuer()]).verify(Credential(CredentialKind.TOKEN, token))


async def test_a_token_stands_for_its_subject_until_it_expires(key):
    found = await caller(key, key.sign("alice", ["create", "read"], "1h"))
    assert (found.subject, found.scopes) == ("alice", {Scope.CREATE, Scope.READ})
    assert not found.has_lost_standing


async def test_an_expired_token_is_refused(key):
    token = key.sign("alice", ["create"], "1h", clock=lambda: time.time() - 3601)
    with pytest.raises(ShareError, match="has expired"):
        await caller(key, token)


async def test_the_key_is_made_once_and_is_its_owner_s_alone(tmp_path):
    path = tmp_path / "data" / "signing-key"
    token = SigningKey.kept(None, path.parent).sign("alice", ["create"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert await caller(SigningKey.kept(None, path.parent), token)


async def test_servers_with_one_key_accept_each_other_s_tokens_and_others_do_not(tmp_path):
    one = SigningKey.kept(None, tmp_path / "one")
    token = one.sign("alice", ["create"])
    assert await caller(SigningKey.kept(tmp_path / "one" / "signing-key", tmp_path / "two"), token)
    assert not (tmp_path / "two").exists()
    assert await caller(SigningKey.kept(None, tmp_path / "three"), token) is None


def test_two_tokens_are_never_the_same(key):
    assert key.sign("alice", ["create"]) != key.sign("alice", ["create"])


UNUSABLE = {
    "text": b"hello",
    "nothing": b"",
    "a public key": pem(make_key("EdDSA")),
    "a key of another type": make_key("RS256").as_pem(private=True),
    "an encrypted key": make_key("EdDSA").as_pem(private=True, password="secret"),
}


@pytest.mark.parametrize("content", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_file_without_such_a_key_is_refused(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(SecretFileError, match="does not hold an Ed25519 private key") as caught:
        SigningKey.kept(path, tmp_path)
    assert str(path) in str(caught.value)


def test_a_key_that_was_named_has_to_be_there(tmp_path):
    with pytest.raises(SecretFileError, match="there is no signing key"):
        SigningKey.kept(tmp_path / "missing", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("", ["create"], "1h"), "subject: must be 1 to 256"),
        (("admin", ["create"], "1h"), "subject: 'admin' is reserved"),
        (("alice", [], "1h"), "scope: must be one or more of"),
        (("alice", ["write"], "1h"), "scope: must be one or more of"),
        (("alice", ["create"], "soon"), "expires: must be a duration"),
        (("alice", ["create"], "367d"), "expires: must be at most 366d"),
    ],
)
def test_a_token_that_makes_no_sense_is_not_signed(key, arguments, named):
    with pytest.raises(ShareError, match=f"^{named}") as caught:
        key.sign(*arguments)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT

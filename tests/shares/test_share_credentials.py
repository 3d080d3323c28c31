import uuid

import pytest

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.share_identity import (
    Credentials,
    SecretKind,
    check_session_id,
    equal_secrets,
    is_share_id,
)

SESSION = "ses_e07c577c9ffeM4JP4I9eiXoPTK"


def test_ids_are_ever_longer_ends_of_the_session_id(credentials):
    assert list(credentials.share_ids(SESSION, None)) == [
        "9eiXoPTK",
        "JP4I9eiXoPTK",
        SESSION[-16:],
        SESSION[-20:],
        SESSION[-24:],
        SESSION[-28:],
        SESSION,
    ]


@pytest.mark.parametrize("session_id", ["a", "abcdefg", "abcdefgh"])
def test_a_short_session_id_is_the_id(credentials, session_id):
    assert list(credentials.share_ids(session_id, None)) == [session_id]


def test_a_subject_has_one_more_id_of_its_own(credentials):
    *_, of_alice = credentials.share_ids(SESSION, "alice")
    *_, of_bob = credentials.share_ids(SESSION, "bob")
    assert of_alice != of_bob
    assert of_alice.startswith(SESSION)
    assert list(credentials.share_ids(SESSION, "alice"))[-1] == of_alice


def test_every_id_of_the_longest_session_is_an_id(credentials):
    session_id = "x" * 256
    ids = [*credentials.share_ids(session_id, "s"), credentials.random_share_id(session_id)]
    assert all(is_share_id(share_id) for share_id in ids)


def test_the_secret_is_the_uuid5_of_the_session_id(credentials, shared_secret):
    made = credentials.of_session(SESSION)
    assert made.id == "9eiXoPTK"
    assert made.secret == str(uuid.uuid5(shared_secret, SESSION))
    assert made.url == "https://share.example/share/9eiXoPTK"


def test_a_later_subject_has_another_secret(credentials):
    first = credentials.secret(SESSION, SecretKind.SESSION, "alice")
    later = credentials.secret(SESSION, SecretKind.SUBJECT, "alice")
    other = credentials.secret(SESSION, SecretKind.SUBJECT, "bob")
    assert len({first, later, other}) == 3


def test_no_secret_can_be_read_off_an_id(credentials):
    *_, own_id = credentials.share_ids("id", "ses alice")
    secrets = [
        credentials.secret("id", SecretKind.SUBJECT, "ses alice"),
        credentials.secret("id", SecretKind.SESSION, None),
    ]
    assert not any(own_id[2:] in secret.replace("-", "") for secret in secrets)


@pytest.mark.parametrize("value", ["", "x" * 257, "a b", "a/b", "é", "a\n", None, 5, b"abc"])
def test_what_is_no_session_id_is_refused(value):
    with pytest.raises(ShareError, match="sessionID") as caught:
        check_session_id(value)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize("value", ["", "../head", "a/b", "a b", "x" * 289, "ü", "abc\n"])
def test_what_is_no_share_id_never_becomes_a_key(value):
    assert not is_share_id(value)


@pytest.mark.parametrize("given", ["", "x", "ü", "\ud800", "abc\0"], ids=ascii)
def test_secrets_of_any_text_can_be_compared(given):
    assert not equal_secrets("abc", given)
    assert equal_secrets(given, given)


def test_no_repr_has_a_secret(credentials, shared_secret):
    made = credentials.of_session(SESSION)
    assert made.secret not in repr(made)
    assert str(shared_secret) not in repr(Credentials(shared_secret, "x"))

"""Who a request comes from: every way to show a credential, alone, bad, and with others."""

import base64

import msgspec
import pytest

from rpcshare.auth.admin_token import ADMIN, AdminTokenVerifier
from rpcshare.auth.authenticator import Authenticator, select_subprotocol, split_path_key
from rpcshare.auth.caller import ANONYMOUS, Caller, Scope
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.request_head import RequestHead
from rpcshare.errors import ErrorCode, ShareError

TOKEN = "admin-Token_~0123456789.abcdef"
BOB = Caller(subject="bob", scopes=frozenset({Scope.CREATE}))
BOBS_KEY = "rsk_bob"


class KnowsBob:
    """A verifier of one stored key; it keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Credential] = []

    async def verify(self, credential: Credential) -> Caller | None:
        self.asked.append(credential)
        return BOB if credential.value == BOBS_KEY else None


def header(name: str, value: str) -> RequestHead:
    return RequestHead(headers=((name, value),))


def handshake(*subprotocols: str) -> RequestHead:
    return RequestHead(is_websocket=True, subprotocols=subprotocols)


def bearer(token: str) -> str:
    return "bearer." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator([AdminTokenVerifier(TOKEN), KnowsBob()])


async def refusal(authenticator: Authenticator, head: RequestHead) -> ShareError:
    with pytest.raises(ShareError) as caught:
        await authenticator.caller(head)
    return caught.value


WAYS_TO_SHOW_THE_ADMIN_TOKEN = {
    "bearer": header("authorization", f"Bearer {TOKEN}"),
    "bearer, scheme in another case": header("authorization", f"bEARER {TOKEN}"),
    "bearer, more spaces": header("authorization", f"  Bearer   {TOKEN}  "),
    "share key": header("x-opencode-share-key", TOKEN),
    "subprotocol after": handshake("rpcshare.json", bearer(TOKEN)),
    "subprotocol before": handshake(bearer(TOKEN), "rpcshare.json"),
    "path": RequestHead(path=f"/k/{TOKEN}/rpc"),
    "path and no more": RequestHead(path=f"/k/{TOKEN}"),
}


@pytest.mark.parametrize(
    "head", WAYS_TO_SHOW_THE_ADMIN_TOKEN.values(), ids=WAYS_TO_SHOW_THE_ADMIN_TOKEN.keys()
)
async def test_the_admin_token_makes_an_admin(authenticator, head):
    assert await authenticator.caller(head) == ADMIN


@pytest.mark.parametrize("token", [TOKEN[:k] for k in range(len(TOKEN) - 3, len(TOKEN))])
async def test_a_bearer_subprotocol_of_any_length_is_read(token):
    # The last base64 group has one to three bytes.
    caller = await Authenticator([AdminTokenVerifier(token)]).caller(handshake(bearer(token)))
    assert caller == ADMIN


NO_CREDENTIAL = {
    "nothing": RequestHead(),
    "other headers": header("cookie", f"token={TOKEN}"),
    "a subprotocol alone": handshake("rpcshare.json"),
    "a bearer subprotocol of a request that is no handshake": RequestHead(subprotocols=(bearer(TOKEN),)),
    "a path that only looks like a prefix": RequestHead(path=f"/key/{TOKEN}"),
    "the prefix further on": RequestHead(path=f"/share/k/{TOKEN}"),
    "the prefix without a slash": RequestHead(path="/k"),
}


@pytest.mark.parametrize("head", NO_CREDENTIAL.values(), ids=NO_CREDENTIAL.keys())
async def test_without_a_credential_a_caller_is_anonymous(authenticator, head):
    assert await authenticator.caller(head) == ANONYMOUS


def basic(text):
    return header("authorization", "Basic " + base64.b64encode(text.encode()).decode())


@pytest.mark.parametrize(
    ("shown", "password"), [(":secret", "secret"), ("somebody:a:b", "a:b"), ("é:ü ✓", "ü ✓"), ("x:", "")]
)
async def test_basic_carries_a_password_and_names_nobody(authenticator, shown, password):
    caller = await authenticator.caller(basic(shown))
    assert caller == msgspec.structs.replace(ANONYMOUS, password=password)
    assert caller.is_anonymous
    assert "password" not in repr(caller)


LONGEST = "x" * 8192
BAD_CREDENTIAL = {
    "bearer": header("authorization", "Bearer wrong"),
    "bearer, almost": header("authorization", f"Bearer {TOKEN}x"),
    "bearer without a token": header("authorization", "Bearer"),
    "bearer with two": header("authorization", f"Bearer {TOKEN} {TOKEN}"),
    "empty authorization": header("authorization", ""),
    "a scheme that nobody knows": header("authorization", "Digest YWRtaW46YWRtaW4="),
    "basic without a colon": basic("wrong"),
    "basic that is no base64": header("authorization", "Basic wrong:wrong"),
    "a token without a scheme": header("authorization", TOKEN),
    "an API key that nobody knows": header("authorization", "ApiKey rsk_nobody"),
    "the admin token as an API key": header("authorization", f"ApiKey {TOKEN}"),
    "share key": header("x-opencode-share-key", "wrong"),
    "empty share key": header("x-opencode-share-key", " "),
    "subprotocol": handshake("rpcshare.json", bearer("wrong")),
    "empty subprotocol": handshake("rpcshare.json", "bearer."),
    "subprotocol with padding": handshake("rpcshare.json", bearer("x") + "=="),
    "subprotocol of an impossible length": handshake("rpcshare.json", "bearer.abcde"),
    "subprotocol in the other alphabet": handshake("rpcshare.json", "bearer.a+/b"),
    "subprotocol of bytes that are no text": handshake("rpcshare.json", "bearer._w8A"),
    "path": RequestHead(path="/k/wrong/rpc"),
    "empty path key": RequestHead(path="/k//rpc"),
    "no path key": RequestHead(path="/k/"),
    "not ASCII": header("authorization", "Bearer n\xe9"),
    "not ASCII in the path": RequestHead(path="/k/\u2713/rpc"),
    "a control character": header("x-opencode-share-key", "a\x00b"),
    "the longest": header("authorization", f"Bearer {LONGEST}"),
}


@pytest.mark.parametrize("head", BAD_CREDENTIAL.values(), ids=BAD_CREDENTIAL.keys())
async def test_a_bad_credential_is_refused(authenticator, head):
    error = await refusal(authenticator, head)
    assert error.code is ErrorCode.UNAUTHORIZED
    assert error.message.startswith("Unauthorized")


@pytest.mark.parametrize("head", BAD_CREDENTIAL.values(), ids=BAD_CREDENTIAL.keys())
async def test_a_refusal_does_not_quote_what_was_shown(authenticator, head):
    message = (await refusal(authenticator, head)).message
    assert not any(shown in message for shown in ("wrong", TOKEN, "rsk_", "YWRt", LONGEST))


NOT_WORTH_VERIFYING = {
    "too long, bearer": header("authorization", f"Bearer {LONGEST}x"),
    "too long, share key": header("x-opencode-share-key", LONGEST + "x"),
    "too long, subprotocol": handshake(bearer(LONGEST + "x")),
    "too long, path": RequestHead(path=f"/k/{LONGEST}x"),
    "not ASCII": header("authorization", "Bearer n\xe9"),
    "malformed beside a good one": RequestHead(
        headers=(("x-opencode-share-key", BOBS_KEY),), path="/k/\u2713"
    ),
}


@pytest.mark.parametrize("head", NOT_WORTH_VERIFYING.values(), ids=NOT_WORTH_VERIFYING.keys())
async def test_a_malformed_or_oversized_credential_reaches_no_verifier(head):
    verifier = KnowsBob()
    error = await refusal(Authenticator([verifier]), head)
    assert (error.code, verifier.asked) == (ErrorCode.UNAUTHORIZED, [])


async def test_a_credential_of_the_greatest_length_is_verified():
    assert await Authenticator([AdminTokenVerifier(LONGEST)]).caller(handshake(bearer(LONGEST)))


async def test_one_credential_shown_in_two_ways_is_fine(authenticator):
    head = RequestHead(headers=(("authorization", f"Bearer {TOKEN}"),), path=f"/k/{TOKEN}/rpc")
    assert await authenticator.caller(head) == ADMIN


TWO_CREDENTIALS = {
    "good and bad header": (
        ("authorization", f"Bearer {TOKEN}"),
        ("x-opencode-share-key", "wrong"),
    ),
    "bad and good header": (
        ("authorization", "Bearer wrong"),
        ("x-opencode-share-key", TOKEN),
    ),
    "one header twice": (
        ("authorization", f"Bearer {TOKEN}"),
        ("authorization", "Bearer wrong"),
    ),
    "an unknown scheme beside a good key": (
        ("authorization", "Digest YWRtaW46YWRtaW4="),
        ("x-opencode-share-key", TOKEN),
    ),
}


@pytest.mark.parametrize("headers", TWO_CREDENTIALS.values(), ids=TWO_CREDENTIALS.keys())
async def test_a_bad_credential_beside_a_good_one_is_refused(authenticator, headers):
    error = await refusal(authenticator, RequestHead(headers=headers))
    assert error.code is ErrorCode.UNAUTHORIZED


async def test_a_good_header_does_not_make_up_for_a_bad_path_key(authenticator):
    head = RequestHead(headers=(("authorization", f"Bearer {TOKEN}"),), path="/k/wrong/rpc")
    assert (await refusal(authenticator, head)).code is ErrorCode.UNAUTHORIZED


async def test_credentials_of_different_callers_are_refused(authenticator):
    head = RequestHead(headers=(("authorization", f"Bearer {TOKEN}"),), path=f"/k/{BOBS_KEY}/rpc")
    assert "different callers" in (await refusal(authenticator, head)).message


async def test_verifiers_are_asked_in_order_until_one_knows_the_caller():
    first, second = KnowsBob(), KnowsBob()
    caller = await Authenticator([AdminTokenVerifier(TOKEN), first, second]).caller(
        header("authorization", f"ApiKey {BOBS_KEY}")
    )
    assert caller == BOB
    assert (first.asked, second.asked) == ([Credential(CredentialKind.API_KEY, BOBS_KEY)], [])


async def test_a_credential_shown_twice_is_verified_once():
    verifier = KnowsBob()
    head = RequestHead(headers=(("authorization", f"Bearer {BOBS_KEY}"), ("x-opencode-share-key", BOBS_KEY)))
    await Authenticator([verifier]).caller(head)
    assert len(verifier.asked) == 1


async def test_a_verifier_that_cannot_tell_is_heard():
    class Unavailable:
        async def verify(self, credential: Credential) -> Caller | None:
            raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, "Storage unavailable", retry_after=1)

    error = await refusal(Authenticator([Unavailable()]), header("authorization", f"ApiKey {BOBS_KEY}"))
    assert error.code is ErrorCode.STORAGE_UNAVAILABLE


@pytest.mark.parametrize("headers", [(), (("x-opencode-share-key", TOKEN),)])
async def test_a_caller_has_the_address_of_its_peer(authenticator, headers):
    caller = await authenticator.caller(RequestHead(headers=headers, address="192.0.2.7"))
    assert caller.address == "192.0.2.7"


async def test_a_token_shown_in_band_makes_the_same_caller(authenticator):
    caller = await authenticator.caller_of_token(TOKEN, address="192.0.2.7")
    assert (caller.subject, caller.address) == ("admin", "192.0.2.7")


@pytest.mark.parametrize("token", ["", "wrong", "n\xe9", "\ud800", LONGEST + "x"])
async def test_a_bad_token_shown_in_band_is_refused(authenticator, token):
    with pytest.raises(ShareError, match=r"^Unauthorized") as caught:
        await authenticator.caller_of_token(token)
    assert caught.value.code is ErrorCode.UNAUTHORIZED


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        (("rpcshare.json", "bearer.eA"), "rpcshare.json"),
        (("bearer.eA", "rpcshare.json"), "rpcshare.json"),
        (("chat", "rpcshare.json"), "rpcshare.json"),
        (("bearer.eA",), None),
        (("chat",), None),
        ((), None),
    ],
)
def test_the_server_selects_what_it_speaks_and_never_a_token(offered, selected):
    assert select_subprotocol(offered) == selected


def test_the_client_s_preference_among_what_both_speak_decides():
    assert select_subprotocol(("b", "a"), supported=("a", "b")) == "b"


@pytest.mark.parametrize(
    ("path", "key", "rest"),
    [
        ("/k/KEY/api/share", "KEY", "/api/share"),
        ("/k/KEY/", "KEY", "/"),
        ("/k/KEY", "KEY", "/"),
        ("/k/KEY//rpc", "KEY", "/rpc"),
        ("/k/A/k/B/rpc", "A", "/k/B/rpc"),
        ("/k//rpc", "", "/rpc"),
        ("/k/", "", "/"),
        ("/k", None, "/k"),
        ("/kk/KEY", None, "/kk/KEY"),
        ("/", None, "/"),
        ("", None, ""),
    ],
)
def test_a_path_is_split_into_key_and_rest(path, key, rest):
    assert split_path_key(path) == (key, rest)


def test_neither_a_credential_nor_a_head_shows_what_is_secret():
    shown = repr(
        (
            Credential(CredentialKind.TOKEN, TOKEN),
            RequestHead(headers=(("authorization", TOKEN),), path=f"/k/{TOKEN}"),
            handshake(TOKEN),
        )
    )
    assert TOKEN not in shown

"""Credentials in cookies: when they count, and what of them is believed."""

import time
from uuid import UUID

import pytest

from rpcshare.auth.admin_token import AdminTokenVerifier
from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import ANONYMOUS, Caller, View
from rpcshare.auth.cookies import CookieReader, SessionSeal, SiteCookies
from rpcshare.auth.credential import Credential
from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.auth.origin import OriginPolicy
from rpcshare.auth.request_head import RequestHead
from rpcshare.errors import ErrorCode, ShareError

SECRET = UUID("2c1f6f0e-5d3a-4b0c-9a57-0f6f6f2b8e11")
TOKEN = "the-admin-token"
SEAL = SessionSeal(SECRET)
ORIGIN = "https://share.example"
COOKIES = SiteCookies(ORIGIN)
SESSION = COOKIES.session
VIEW = View("share123", "g1", 0)


class Verifier:
    """Knows a few tokens by heart."""

    async def verify(self, credential: Credential) -> Caller | None:
        match credential.value:
            case "rsv_view":
                return Caller(subject=None, views=frozenset({VIEW}))
            case "ann":
                return Caller(subject="ann")
            case "expired":
                return Caller(subject="old", standing=CredentialValidity(time.time() - 1))
            case "refused":
                raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: the token has expired")
            case "unavailable":
                raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, "Storage unavailable", retry_after=1.0)
        return None


@pytest.fixture
def authenticator() -> Authenticator:
    origins = OriginPolicy(ORIGIN, ["https://friend.example"])
    return Authenticator(
        [AdminTokenVerifier(TOKEN), Verifier()], cookies=CookieReader(SEAL, origins, COOKIES)
    )


def session(token: str = TOKEN) -> str:
    return f"{SESSION}={SEAL.seal(token)}"


def head(cookie: str, *more: tuple[str, str], method: str = "GET", is_websocket: bool = False) -> RequestHead:
    headers = (("host", "share.example"), ("cookie", cookie), *more)
    return RequestHead(headers, "/sessions", "127.0.0.1", is_websocket=is_websocket, method=method)


@pytest.mark.parametrize(
    ("base_url", "session", "view", "path", "path_of_share"),
    [
        ("https://h.example", "__Host-rpcshare_session", "__Secure-rpcshare_view_s1", "/", "/share/s1"),
        (
            "https://h.example/base",
            "__Secure-rpcshare_session",
            "__Secure-rpcshare_view_s1",
            "/base/",
            "/base/share/s1",
        ),
        ("http://127.0.0.1:8787", "rpcshare_session", "rpcshare_view_s1", "/", "/share/s1"),
    ],
)
def test_over_https_names_say_who_may_set_a_cookie(
    base_url: str, session: str, view: str, path: str, path_of_share: str
) -> None:
    cookies = SiteCookies(base_url)
    assert (cookies.session, cookies.view("s1")) == (session, view)
    assert (cookies.path(), cookies.path("s1")) == (path, path_of_share)
    assert cookies.is_secure == base_url.startswith("https")


async def test_what_was_signed_in_with_is_shown_again(authenticator: Authenticator) -> None:
    caller = await authenticator.caller(head(session()))
    assert caller.subject == "admin"


async def test_the_cookie_does_not_tell_the_token() -> None:
    assert TOKEN not in SEAL.seal(TOKEN)
    assert SessionSeal(UUID(int=1)).open(SEAL.seal(TOKEN)) is None


@pytest.mark.parametrize(
    "cookie",
    [
        f"{SESSION}=",
        f"{SESSION}=nonsense",
        f"{SESSION}=\xff\xfe",
        f"rpcshare_session={SEAL.seal(TOKEN)}",
        session("unknown"),
        session("expired"),
        SESSION,
        f"a=b; =; ;;; {COOKIES.view('x')}=x",
        f"{SESSION.upper()}={SEAL.seal(TOKEN)}",
    ],
)
async def test_a_cookie_that_is_not_valid_is_as_if_it_were_not_there(
    authenticator: Authenticator, cookie: str
) -> None:
    caller = await authenticator.caller(head(cookie))
    assert caller.subject is None


async def test_a_cookie_whose_token_is_refused_is_as_if_it_were_not_there(
    authenticator: Authenticator,
) -> None:
    caller = await authenticator.caller(head(session("refused")))
    assert caller.subject is None


async def test_what_cannot_be_verified_now_is_not_taken_for_nobody_s(authenticator: Authenticator) -> None:
    with pytest.raises(ShareError) as refused:
        await authenticator.caller(head(session("unavailable")))
    assert refused.value.code is ErrorCode.STORAGE_UNAVAILABLE


async def test_a_cookie_among_others_that_cannot_be_read_is_found(authenticator: Authenticator) -> None:
    cookie = f'strange={{"a":1}}; b@d=1; {session()}'
    assert (await authenticator.caller(head(cookie))).subject == "admin"


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "PUT"])
async def test_what_changes_something_must_come_from_our_own_page(
    authenticator: Authenticator, method: str
) -> None:
    own = [("origin", ORIGIN)], [("sec-fetch-site", "same-origin")]
    for headers in own:
        assert (await authenticator.caller(head(session(), *headers, method=method))).subject == "admin"
    others: tuple[list[tuple[str, str]], ...] = (
        [],
        [("origin", "https://friend.example")],
        [("origin", "null")],
        [("origin", "https://evil.example")],
        [("sec-fetch-site", "same-site")],
        [("sec-fetch-site", "cross-site")],
        [("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
    )
    for foreign in others:
        assert (await authenticator.caller(head(session(), *foreign, method=method))).subject is None


async def test_a_websocket_needs_our_own_origin(authenticator: Authenticator) -> None:
    assert (await authenticator.caller(head(session(), is_websocket=True))).subject is None
    own = head(session(), ("origin", ORIGIN), is_websocket=True)
    assert (await authenticator.caller(own)).subject == "admin"


async def test_a_read_from_another_s_page_is_nobody_s(authenticator: Authenticator) -> None:
    caller = await authenticator.caller(head(session(), ("origin", "https://friend.example")))
    assert caller.subject is None


async def test_a_credential_that_is_shown_comes_first(authenticator: Authenticator) -> None:
    caller = await authenticator.caller(head(session(), ("authorization", "Bearer ann")))
    assert caller.subject == "ann"
    assert not caller.scopes


async def test_a_bad_credential_is_refused_beside_a_good_cookie(authenticator: Authenticator) -> None:
    with pytest.raises(ShareError) as caught:
        await authenticator.caller(head(session(), ("authorization", "Bearer nobody")))
    assert caught.value.code is ErrorCode.UNAUTHORIZED


async def test_views_add_up(authenticator: Authenticator) -> None:
    caller = await authenticator.caller(head(f"{COOKIES.view('share123')}=rsv_view; {session()}"))
    assert caller.subject == "admin"
    assert caller.views == {VIEW}
    caller = await authenticator.caller(head(f"{COOKIES.view('share123')}=rsv_view"))
    assert caller.subject is None
    assert caller.views == {VIEW}


async def test_without_a_reader_cookies_are_nothing() -> None:
    authenticator = Authenticator([AdminTokenVerifier(TOKEN)])
    assert (await authenticator.caller(head(session()))).subject == ANONYMOUS.subject

"""Whose pages may make a browser call."""

import pytest

from rpcshare.auth.origin import OriginPolicy, parse_origin
from rpcshare.auth.request_head import RequestHead
from rpcshare.errors import ErrorCode, ShareError

PUBLIC_URL = "https://share.example.com:443/base"
BASE_URL = "http://127.0.0.1:8787"
ALLOWED = ("https://app.example.org", "http://localhost:3000", "tauri://localhost")


def request_from(*origins: str, host: str | None = "127.0.0.1:8787") -> RequestHead:
    hosts = [] if host is None else [("host", host)]
    return RequestHead(headers=(*hosts, *(("origin", origin) for origin in origins)))


@pytest.fixture
def policy() -> OriginPolicy:
    return OriginPolicy(PUBLIC_URL, ALLOWED, is_public=True)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(request_from(), id="no browser"),
        pytest.param(request_from("https://share.example.com"), id="the public URL's"),
        pytest.param(request_from("https://app.example.org"), id="listed"),
        pytest.param(request_from("HTTPS://App.Example.org:443"), id="listed, spelled otherwise"),
        pytest.param(request_from("http://localhost:3000"), id="listed with a port"),
        pytest.param(request_from("tauri://localhost"), id="listed, a desktop app's"),
    ],
)
def test_own_and_listed_origins_may_call(policy, head):
    policy.check(head)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(request_from("https://evil.example"), id="another"),
        pytest.param(request_from("null"), id="null"),
        pytest.param(request_from("null", host="null"), id="null, with a Host to match"),
        pytest.param(request_from(""), id="empty"),
        pytest.param(request_from("http://share.example.com"), id="the public URL's, less secure"),
        pytest.param(request_from("https://share.example.com:8443"), id="another port"),
        pytest.param(request_from("http://127.0.0.1:8787"), id="the Host's"),
        pytest.param(request_from("https://evil.example", host="evil.example"), id="the Host's, with TLS"),
        pytest.param(
            request_from("http://share.example.com", host="share.example.com"),
            id="the public URL's and the Host's, less secure",
        ),
        pytest.param(request_from("https://share.example.com.evil.example"), id="longer"),
        pytest.param(request_from("https://evil.example/https://app.example.org"), id="a URL"),
        pytest.param(request_from("https://app.example.org@evil.example"), id="with a user"),
        pytest.param(request_from("https://app.example.org", "https://evil.example"), id="two"),
    ],
)
def test_any_other_origin_is_forbidden(policy, head):
    with pytest.raises(ShareError, match=r"^Forbidden") as caught:
        policy.check(head)
    assert caught.value.code is ErrorCode.FORBIDDEN
    assert not policy.is_own(head)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(request_from("http://127.0.0.1:8787", host="localhost:8787"), id="the server's"),
        pytest.param(request_from("http://127.0.0.1:8787"), id="the Host's"),
        pytest.param(request_from("https://127.0.0.1:8787"), id="the Host's, TLS ended before"),
        pytest.param(request_from("https://h.example", host="H.Example:443"), id="default port"),
        pytest.param(request_from("http://[::1]:8787", host="[::1]:8787"), id="IPv6"),
    ],
)
def test_without_a_public_url_pages_of_the_addressed_host_are_own(head):
    policy = OriginPolicy(BASE_URL)
    policy.check(head)
    assert policy.is_own(head)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(request_from("https://share.example.com"), id="another"),
        pytest.param(request_from("http://127.0.0.1"), id="the Host's without its port"),
        pytest.param(request_from("ftp://127.0.0.1:8787"), id="the Host's in another scheme"),
        pytest.param(request_from("http://evil.example", host=None), id="no Host"),
    ],
)
def test_without_a_public_url_no_others_are(head):
    policy = OriginPolicy(BASE_URL)
    assert not policy.is_own(head)
    with pytest.raises(ShareError):
        policy.check(head)


def test_a_server_of_tls_has_no_page_without():
    policy = OriginPolicy("https://127.0.0.1:8787")
    head = request_from("http://h.example:8787", host="h.example:8787")
    assert not policy.is_own(head)
    with pytest.raises(ShareError):
        policy.check(head)
    policy.check(request_from("https://h.example:8787", host="h.example:8787"))


def test_who_is_listed_is_not_the_server_itself(policy):
    assert not policy.is_own(request_from("https://app.example.org"))
    assert policy.is_own(request_from("https://share.example.com"))


def test_a_policy_cannot_be_made_of_what_is_no_origin():
    with pytest.raises(ValueError, match="scheme://host"):
        OriginPolicy(allowed=["*"])


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://example.com", "https://example.com"),
        ("HTTPS://EXAMPLE.com", "https://example.com"),
        ("https://example.com:443", "https://example.com"),
        ("http://example.com:443", "http://example.com:443"),
        ("http://example.com:080", "http://example.com"),
        ("http://[2001:DB8::1]:80", "http://[2001:db8::1]"),
        ("app://x:0", "app://x:0"),
        ("https://example.com/", None),
        ("https://example.com:65536", None),
        ("https://example.com:", None),
        ("https://user@example.com", None),
        ("https://", None),
        ("https://[::1", None),
        ("https://example.com\n", None),
        ("example.com", None),
        ("null", None),
        ("", None),
    ],
)
def test_an_origin_has_one_normal_form(text, origin):
    assert parse_origin(text) == origin

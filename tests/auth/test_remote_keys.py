"""The keys of an issuer at a URL: fetched from a real server, kept, rotated, and missed when it is down."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rpcshare.auth import jwks
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.jwks import RemoteKeys
from rpcshare.auth.signed_tokens import SignedTokenVerifier, TokenIssuer
from rpcshare.errors import ErrorCode, ShareError
from support.token_issuer import AUDIENCE, ISSUER, jwk, make_key, token

ONE, OTHER = make_key("EdDSA"), make_key("EdDSA")


class JwksServer:
    """Serves a JWKS on the loopback, and counts how often."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.requests = 0
        self.publish(one=ONE)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def publish(self, **keys) -> None:
        self.status = 200
        self.body = json.dumps({"keys": [jwk(key, key_id) for key_id, key in keys.items()]}).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[JwksServer]:
    server = JwksServer()
    yield server
    server.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keys(server, clock):
    keys = RemoteKeys(server.url, clock=clock)
    yield keys
    await keys.close()


async def is_known(keys: RemoteKeys, text: str) -> bool:
    verifier = SignedTokenVerifier([TokenIssuer(name=ISSUER, audience=AUDIENCE, keys=keys)])
    return await verifier.verify(Credential(CredentialKind.TOKEN, text)) is not None


def by_one() -> str:
    return token(ONE, "EdDSA", kid="one")


def by_other() -> str:
    return token(OTHER, "EdDSA", kid="other")


async def test_keys_are_fetched_once_and_kept(keys, server):
    assert all([await is_known(keys, by_one()) for _ in range(3)])
    assert server.requests == 1


async def test_nothing_is_fetched_before_there_is_a_token(keys, server):
    assert server.requests == 0


async def test_tokens_that_come_at_once_wait_for_one_request(keys, server):
    assert all(await asyncio.gather(*(is_known(keys, by_one()) for _ in range(20))))
    assert server.requests == 1


async def test_a_new_key_is_fetched_when_a_token_names_it(keys, server, clock):
    assert await is_known(keys, by_one())
    server.publish(one=ONE, other=OTHER)
    clock.now += jwks.MIN_INTERVAL
    assert await is_known(keys, by_other())
    assert server.requests == 2


async def test_tokens_that_name_unknown_keys_make_few_requests(keys, server, clock):
    assert await is_known(keys, by_one())
    clock.now += jwks.MIN_INTERVAL
    for number in range(10):
        assert not await is_known(keys, token(OTHER, "EdDSA", kid=f"invented-{number}"))
    assert server.requests == 2
    clock.now += jwks.MIN_INTERVAL - 1
    assert not await is_known(keys, by_other())
    assert server.requests == 2


async def test_a_forged_token_that_names_a_known_key_makes_no_request(keys, server, clock):
    assert await is_known(keys, by_one())
    clock.now += jwks.MIN_INTERVAL
    assert not await is_known(keys, token(OTHER, "EdDSA", kid="one"))
    assert server.requests == 1


async def test_a_key_that_was_taken_back_is_not_used_for_long(keys, server, clock):
    assert await is_known(keys, by_one())
    server.publish(other=OTHER)
    clock.now += jwks.MAX_AGE + 1
    async with asyncio.timeout(5):
        while await is_known(keys, by_one()):  # noqa: ASYNC110 -- the request tells nobody
            await asyncio.sleep(0.01)
    assert await is_known(keys, by_other())


def fail(server: JwksServer) -> None:
    server.status = 503


def send_garbage(server: JwksServer) -> None:
    server.body = b"<html>"


def send_another_document(server: JwksServer) -> None:
    server.body = b'{"issuer": "x"}'


def send_very_much(server: JwksServer) -> None:
    server.body = b" " * (jwks.MAX_SIZE + 1)


def redirect(server: JwksServer) -> None:
    server.status = 302


FAILURES = [fail, send_garbage, send_another_document, send_very_much, redirect]


@pytest.mark.parametrize("failure", FAILURES)
async def test_known_keys_are_used_while_they_cannot_be_fetched(keys, server, clock, failure):
    assert await is_known(keys, by_one())
    failure(server)
    clock.now += jwks.MAX_AGE + 1
    assert await is_known(keys, by_one())
    async with asyncio.timeout(5):
        while server.requests < 2:  # noqa: ASYNC110 -- likewise
            await asyncio.sleep(0.01)
    assert await is_known(keys, by_one())
    clock.now += jwks.MAX_STALE - jwks.MAX_AGE - 2
    assert await is_known(keys, by_one())


@pytest.mark.parametrize("failure", FAILURES)
async def test_without_any_keys_it_cannot_be_told_who_asks(keys, server, failure):
    failure(server)
    with pytest.raises(ShareError) as caught:
        await is_known(keys, by_one())
    assert (caught.value.code, caught.value.retry_after) == (ErrorCode.STORAGE_UNAVAILABLE, jwks.TIMEOUT)


async def test_keys_are_not_used_for_ever_without_their_issuer(keys, server, clock):
    assert await is_known(keys, by_one())
    fail(server)
    clock.now += jwks.MAX_STALE + 1
    with pytest.raises(ShareError, match="not available"):
        await is_known(keys, by_one())
    server.publish(one=ONE)
    clock.now += jwks.MIN_INTERVAL
    assert await is_known(keys, by_one())


async def test_a_server_that_is_not_there_is_asked_no_more_often_than_another(clock):
    keys = RemoteKeys("http://127.0.0.1:9/", clock=clock)
    for _ in range(3):
        with pytest.raises(ShareError, match="not available"):
            await is_known(keys, by_one())
    await keys.close()


async def test_a_failure_is_logged_without_what_the_other_side_sent(keys, server, caplog):
    send_garbage(server)
    with pytest.raises(ShareError):
        await is_known(keys, by_one())
    assert "cannot be fetched" in caplog.text
    assert "html" not in caplog.text

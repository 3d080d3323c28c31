"""Callers around users: hostile providers, forged answers, the vault, lists of users."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlencode

from abuse.target import Target

__all__ = ["KINDS"]

CALLERS = 24
KEY = b'{"kty":"RSA","n":"' + b"A" * 1000 + b'","e":"AQAB"}'
HEADERS: tuple[dict[str, object], ...] = (
    {"alg": "none"},
    {"alg": "RS256", "kid": "x" * 1000},
    {"alg": "HS256"},
    {"alg": ["x"]},
)
PORT = 28_197  # of the provider, which the server's configuration names before it is there


def with_provider(folder: Path) -> tuple[str, ...]:
    """Return the options of a server whose users sign in with the provider below."""
    path = folder / "rpcshare.toml"
    text = f'[oidc.abuse]\nissuer = "http://127.0.0.1:{PORT}"\nclient_id = "rpcshare"\n'
    path.write_text(text + 'organization_claim = "org"\n')
    return (f"--config={path}", "--max-user-requests=1000000", "--max-user-storage=1GB")


def metadata() -> bytes:
    base = f"http://127.0.0.1:{PORT}"
    names = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint", "end_session_endpoint")
    found = {"issuer": base, "jwks_uri": f"{base}/keys", **{name: f"{base}/{name}" for name in names}}
    return json.dumps(found).encode()


def hostile(rng: random.Random) -> bytes:
    """Return what a provider may answer that wishes its client ill."""
    return rng.choice(
        (
            lambda: b"[" * 100_000,
            lambda: b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
            lambda: b"{" + b",".join(b'"%d":1' % number for number in range(20_000)) + b"}",
            lambda: b"x" * 2**20,
            lambda: (
                b'{"keys":['
                + b",".join([b'{"kty":"RSA","n":"' + b"A" * 1000 + b'","e":"AQAB"}'] * 200)
                + b"]}"
            ),
            lambda: b'{"id_token":"' + b"A" * 200_000 + b'"}',
            lambda: b'{"id_token":"' + forged(rng).encode() + b'","access_token":"x"}',
            lambda: b'{"sub":"' + b"\\ud83d" * 10_000 + b'"}',
            lambda: b"\xff\xfe",
            lambda: b"",
        )
    )()


def forged(rng: random.Random) -> str:
    """Return a token that nobody has signed."""
    header = rng.choice(
        ({"alg": "none"}, {"alg": "RS256", "kid": "x" * 1000}, {"alg": "HS256"}, {"alg": ["x"]})
    )
    size = rng.choice((1, 1000, 30_000))
    claims = {"iss": f"http://127.0.0.1:{PORT}", "aud": ["x"] * size, "sub": "x" * size, "exp": 10**30}
    parts = (urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in (header, claims))
    return ".".join([*parts, "A" * rng.choice((0, 342, 10_000))])


@contextmanager
def provider(rng: random.Random, *, is_well: Callable[[str], bool]) -> Iterator[None]:
    """Run a provider that answers as it should where ``is_well`` says so, and otherwise anything."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                body = hostile(rng)
                slowness = rng.choice((0, 0, 0, 0, 3, 8))
            if is_well(self.path):
                body, slowness = metadata(), 0
            with suppress(OSError):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body) + (10_000 if slowness == 8 else 0)))
                self.end_headers()
                self.wfile.write(body[:100])
                time.sleep(slowness)
                self.wfile.write(body[100:])

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, *_: object) -> None:
            """Say nothing: clients go away."""

    with Server(("127.0.0.1", PORT), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()


def at_once(target: Target, seconds: float, ask: Callable[[http.client.HTTPConnection], None]) -> None:
    """Have many callers ask again and again, each over a connection of its own."""
    until = time.monotonic() + seconds

    def go_on() -> None:
        while time.monotonic() < until:
            connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
            with suppress(OSError, http.client.HTTPException):
                while time.monotonic() < until:
                    ask(connection)
            connection.close()

    with ThreadPoolExecutor(CALLERS) as threads:
        for _ in range(CALLERS):
            threads.submit(go_on)


def get(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> tuple[int, str]:
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    return response.status, response.headers.get("set-cookie", "")


def begins_of_sign_ins(target: Target, rng: random.Random, seconds: float) -> None:
    """Press the button of a provider that answers anything."""
    with provider(rng, is_well=lambda _path: False):

        def ask(connection: http.client.HTTPConnection) -> None:
            next_address = quote(rng.choice(("sessions", "//evil.example", "x" * 5000, "\\\\evil", "a?b=c")))
            get(connection, f"/auth/abuse/login?next={next_address}", {})

        at_once(target, seconds, ask)


def answers_of_providers(target: Target, rng: random.Random, seconds: float) -> None:
    """Come back from a provider whose tokens are anything, with the right state or any other."""
    with provider(rng, is_well=lambda path: path.startswith("/.well-known/")):

        def ask(connection: http.client.HTTPConnection) -> None:
            connection.request("GET", "/auth/abuse/login")
            response = connection.getresponse()
            response.read()
            location = response.headers.get("location", "")
            kept = response.headers.get("set-cookie", "").partition(";")[0]
            state = location.partition("state=")[2].partition("&")[0]
            if rng.random() < 0.3:
                state = rng.choice(("", "x" * 10_000, "\x00", "a" * 12))
            cookies = [kept, *(f"rpcshare_signing_in_{n}={'A' * 400}" for n in range(rng.choice((0, 3, 40))))]
            code = rng.choice(("code", "x" * 5000, "", "%00", "é"))
            query = urlencode([("state", state), ("code", code), *([("code", "y")] * rng.choice((0, 0, 50)))])
            get(connection, f"/auth/abuse/callback?{query}", {"Cookie": "; ".join(cookies)})

        at_once(target, seconds, ask)


def logout_tokens(target: Target, rng: random.Random, seconds: float) -> None:
    """Say, as a provider would, that somebody has signed out."""
    with provider(rng, is_well=lambda path: path.startswith("/.well-known/")):

        def ask(connection: http.client.HTTPConnection) -> None:
            token = rng.choice((forged, lambda _: "x" * 60_000, lambda _: ".." * 8000))(rng)
            body = urlencode([("logout_token", token)] * rng.choice((1, 1, 90))).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", "/auth/abuse/backchannel-logout", body, headers)
            connection.getresponse().read()

        at_once(target, seconds, ask)


def bodies_for_the_vault(target: Target, rng: random.Random, seconds: float) -> None:
    """Store what is large, deep, wrong, or once more of a thousand; list it, and read it."""

    def value() -> object:
        return rng.choice(
            (
                lambda: "x" * 65_536,
                lambda: "\u00e9" * 40_000,
                lambda: "v",
                lambda: ["v"] * 10_000,
                lambda: {"a": {"a": 1}},
                lambda: "",
                lambda: 10**300,
            )
        )()

    def ask(connection: http.client.HTTPConnection) -> None:
        entry = {"service": "openai", "name": f"n{rng.randrange(1200)}", "value": value()}
        if rng.random() < 0.2:
            entry["grants"] = [f"workspace:{number}" for number in range(rng.choice((5, 5000)))]
        body = json.dumps(entry).encode()
        if rng.random() < 0.1:
            body = rng.choice((b"[" * 400_000, b'{"value":"' + b"\\u0041" * 80_000 + b'"}', b"x" * 600_000))
        connection.request("POST", "/api/keys", body, target.admin)
        answer = connection.getresponse().read()
        path = rng.choice(("/api/keys", "/vault"))
        get(connection, path, target.admin)
        with suppress(ValueError, KeyError, TypeError):
            get(connection, f"/api/keys/{json.loads(answer)['id']}", target.admin)

    at_once(target, seconds, ask)


def pipelined_vaults(target: Target, rng: random.Random, seconds: float) -> None:
    """Ask for thousands of vaults, and of lists of users, in one batch."""

    def ask(connection: http.client.HTTPConnection) -> None:
        what, method = rng.choice((("vault", "list"), ("users", "list"), ("users", "organizations")))
        count = rng.choice((10, 500, 2000))
        lines = []
        for number in range(count):
            lines.append(json.dumps(["push", ["pipeline", 0, [what], []]]))
            lines.append(json.dumps(["push", ["pipeline", 2 * number + 1, [method], []]]))
        lines += [json.dumps(["pull", 2 * number + 2]) for number in range(count)]
        connection.request("POST", "/rpc", "\n".join(lines).encode(), target.admin)
        connection.getresponse().read()

    at_once(target, seconds, ask)


def lists_of_users(target: Target, rng: random.Random, seconds: float) -> None:
    """Look for texts among users, in what was done, and for limits, with arguments of every kind."""

    def ask(connection: http.client.HTTPConnection) -> None:
        text = rng.choice(("a", "%", "_" * 5000, "x" * 200_000, "\u0130" * 3000, "'; --"))
        method, *given = rng.choice(
            (
                ("list", {"query": text, "limit": 200}),
                ("list", {"cursor": text}),
                ("audit", {"organization": text, "cursor": text}),
                ("organizationLimits", text),
                ("setOrganizationLimits", text, {"shares": 1}),
                ("setLimits", text, {"storage": 2**53}),
                ("get", text),
            )
        )
        lines = [
            '["push",["pipeline",0,["users"],[]]]',
            json.dumps(["push", ["pipeline", 1, [method], given]]),
        ]
        connection.request("POST", "/rpc", "\n".join([*lines, '["pull",2]']).encode(), target.admin)
        connection.getresponse().read()

    at_once(target, seconds, ask)


KINDS = {
    "people-sign-in-begins": begins_of_sign_ins,
    "people-sign-in-answers": answers_of_providers,
    "people-logout-tokens": logout_tokens,
    "people-lists": lists_of_users,
    "vault-bodies": bodies_for_the_vault,
    "vault-pipelines": pipelined_vaults,
}

for _kind in KINDS.values():
    _kind.options = with_provider  # type: ignore[attr-defined]

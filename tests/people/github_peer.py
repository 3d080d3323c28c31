"""A server that behaves as GitHub's OAuth and API do, or fails as a test asks."""

import hashlib
import json
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

__all__ = ["CLIENT_SECRET", "GitHubPeer"]

CLIENT_SECRET = "a-client-secret-of-github"

Failure = tuple[int, object] | Callable[[BaseHTTPRequestHandler], None]


class GitHubPeer:
    """GitHub, as an Enterprise Server: its API is below ``/api/v3``."""

    def __init__(self) -> None:
        self.user: dict[str, Any] = {}
        self.emails: object = []
        self.organizations: object = []
        self.teams: object = []
        self.fails: dict[str, Failure] = {}
        """By path: what is answered in place of what would be."""
        self.denied = ""
        """The error that the browser brings back."""
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._tokens: set[str] = set()
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                peer._handle(self, {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                peer._handle(self, {name: values[0] for name, values in parse_qs(body).items()})

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.reset()

    def reset(self) -> None:
        """Be well, and have one user again."""
        self.user = {
            "id": 17,
            "login": "alice",
            "name": "Alice Example",
            "avatar_url": "https://a.example/17",
        }
        self.emails = [
            {"email": "old@acme.example", "primary": False, "verified": True},
            {"email": "Alice@acme.example", "primary": True, "verified": True},
        ]
        self.organizations = [{"login": "acme"}, {"login": "elsewhere"}]
        self.teams = [{"slug": "operators", "organization": {"login": "acme"}}]
        self.fails, self.denied, self.asked = {}, "", []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handle(self, request: BaseHTTPRequestHandler, form: dict[str, str]) -> None:
        address = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.asked.append((address.path, query or form))
        if (failure := self.fails.get(address.path)) is not None:
            if callable(failure):
                failure(request)
            else:
                _answer(request, *failure)
            return
        match address.path:
            case "/login/oauth/authorize":
                self._authorize(request, query)
            case "/login/oauth/access_token":
                _answer(request, 200, self._exchanged(form))
            case "/api/v3/user":
                self._api(request, self.user)
            case "/api/v3/user/emails":
                self._api(request, self.emails)
            case "/api/v3/user/orgs":
                self._api(request, self.organizations)
            case "/api/v3/user/teams":
                self._api(request, self.teams)
            case _:
                _answer(request, 404, {"message": "Not Found"})

    def _authorize(self, request: BaseHTTPRequestHandler, query: dict[str, str]) -> None:
        back = {"state": query["state"]}
        if self.denied:
            back |= {"error": self.denied, "error_description": "<script>no</script>"}
        else:
            back["code"] = secrets.token_hex(10)
            self._codes[back["code"]] = query
        request.send_response(302)
        request.send_header("Location", f"{query['redirect_uri']}?{urlencode(back)}")
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _exchanged(self, form: dict[str, str]) -> dict[str, str]:
        asked = self._codes.pop(form.get("code", ""), None)
        if form.get("client_secret") != CLIENT_SECRET or form.get("client_id") != "Iv1.test":
            return {"error": "incorrect_client_credentials"}
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or asked["code_challenge"] != challenge:
            return {"error": "bad_verification_code", "error_description": "The code passed is incorrect."}
        if asked["redirect_uri"] != form.get("redirect_uri"):
            return {"error": "redirect_uri_mismatch"}
        token = f"gho_{secrets.token_hex(18)}"
        self._tokens.add(token)
        return {"access_token": token, "token_type": "bearer", "scope": asked["scope"]}

    def _api(self, request: BaseHTTPRequestHandler, content: object) -> None:
        shown = (request.headers["Authorization"] or "").removeprefix("Bearer ")
        if shown not in self._tokens:
            _answer(request, 401, {"message": "Bad credentials"})
        else:
            _answer(request, 200, content)


def _answer(request: BaseHTTPRequestHandler, status: int, content: object) -> None:
    body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def hangs(request: BaseHTTPRequestHandler) -> None:
    """Answer a byte now and then, for longer than anybody waits."""
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(60):
            request.wfile.write(b" ")
            request.wfile.flush()
            time.sleep(0.5)
    except OSError:
        return


def is_cut_off(request: BaseHTTPRequestHandler) -> None:
    """End the connection in the middle of the answer."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b'{"id": ')
    request.close_connection = True

"""What an ASGI server would tell an application, for tests that take its place."""

from starlette.types import Scope

__all__ = ["http_scope"]


def http_scope(method: str, path: str) -> Scope:
    """Return the scope of a request without headers, from 192.0.2.1."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.1", 1),
        "server": ("share.example", 80),
    }

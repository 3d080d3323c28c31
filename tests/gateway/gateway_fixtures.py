"""A gateway to test with: two tables that lead to a scripted provider, and one sandbox."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from gateway.scripted_provider import ScriptedProvider
from rpcshare.auth.audit import AuditLog
from rpcshare.auth.caller import Caller, Scope
from rpcshare.gateway.gateway import ModelGateway
from rpcshare.gateway.http_connection import ConnectionLimits
from rpcshare.gateway.metering import Usage
from rpcshare.gateway.models import ModelCatalogue, parse_model_tables
from rpcshare.gateway.upstream import UpstreamTimeouts

__all__ = ["ANTHROPIC_KEY", "KEY", "Gateway", "Sessions", "tables"]

KEY = "sk-test-0123456789abcdef"
ANTHROPIC_KEY = "sk-ant-0123456789abcdef"
OWNER = Caller(subject="ada", scopes=frozenset({Scope.CREATE}), source="key")
PRICES = {"large": {"input": 3.0, "output": 15.0, "cache_read": 0.3, "cache_write": 3.75}}


def tables(url: str, **more: Mapping[str, Any]) -> ModelCatalogue:
    """Return a catalogue with the tables ``acme`` and ``claude``; ``more`` changes them, or makes others."""
    acme = {
        "kind": "openai",
        "base_url": url,
        "key_env": "ACME_KEY",
        "models": ["large", "small"],
        "prices": PRICES,
    }
    claude = {
        "kind": "anthropic",
        "base_url": url,
        "key_env": "CLAUDE_KEY",
        "models": ["large"],
        "prices": PRICES,
    }
    given = {"acme": acme, "claude": claude}
    for name, table in more.items():
        given[name] = {**given.get(name, {"kind": "openai", "base_url": url, "models": ["large"]}), **table}
    return ModelCatalogue(parse_model_tables(given))


class Sessions:
    """Agents that allow everything, unless they are told of an error; and that note what they are told."""

    def __init__(self) -> None:
        self.caller = OWNER
        self.error: Exception | None = None
        self.admitted: list[tuple[str | None, str]] = []
        self.charged: list[tuple[str | None, str, Usage]] = []
        self._changed = asyncio.Condition()

    async def admit(self, session_id: str | None, model: str) -> Caller:
        if self.error is not None:
            raise self.error
        self.admitted.append((session_id, model))
        return self.caller

    async def charge(self, session_id: str | None, model: str, usage: Usage) -> None:
        async with self._changed:
            self.charged.append((session_id, model, usage))
            self._changed.notify_all()

    async def usage(self, number: int = 1) -> Usage:
        """Return what was charged at last, once so many have been."""
        async with self._changed, asyncio.timeout(60):
            await self._changed.wait_for(lambda: len(self.charged) >= number)
        return self.charged[-1][2]


class Gateway:
    """An open gateway, and clients that reach it as a sandbox does."""

    def __init__(
        self,
        provider: ScriptedProvider,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        catalogue: ModelCatalogue | None = None,
        open_vault: Any = None,
        timeouts: UpstreamTimeouts | None = None,
        limits: ConnectionLimits | None = None,
        sessions: Any = None,
    ) -> None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.setenv("ACME_KEY", KEY)
        monkeypatch.setenv("CLAUDE_KEY", ANTHROPIC_KEY)
        self.provider = provider
        self.path = folder / "models.sock"
        self.sessions: Sessions = sessions or Sessions()
        self.it = ModelGateway(
            catalogue or tables(provider.url), open_vault, AuditLog(), timeouts=timeouts, limits=limits
        )
        transport = httpx.AsyncHTTPTransport(uds=str(self.path))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4000", timeout=60)

    async def __aenter__(self) -> Self:
        self.socket = await self.it.open(self.path, self.sessions, workspace_id="ws_1", workspace_name="site")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        await self.it.close()

    async def chat(self, headers: Mapping[str, str] | None = None, **fields: Any) -> httpx.Response:
        """Ask ``acme/large`` something."""
        body = {"model": "large", "messages": [{"role": "user", "content": "Hello"}], **fields}
        return await self.client.post("/acme/v1/chat/completions", json=body, headers=headers)

    async def messages(self, headers: Mapping[str, str] | None = None, **fields: Any) -> httpx.Response:
        """Ask ``claude/large`` something."""
        body = {
            "model": "large",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "Hello"}],
            **fields,
        }
        return await self.client.post("/claude/v1/messages", json=body, headers=headers)

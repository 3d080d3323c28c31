"""Readers of a share's events, as tests need them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpx

from support.running_server import RunningServer

__all__ = ["ServerSent", "Share", "read_stream", "stream"]


class ServerSent(NamedTuple):
    """An event of a stream: its id, None for the id of the one before, and its data."""

    id: str | None
    event: dict


class Share:
    """A share to be watched."""

    def __init__(self, server: RunningServer, session_id: str, data: list[object] | None = None) -> None:
        self._server = server
        headers = {"Authorization": f"Bearer {server.token}"}
        body = {"sessionID": session_id, "data": data or []}
        made = httpx.post(f"{server.url}/api/share", json=body, headers=headers).json()
        self.id, self.secret = made["id"], made["secret"]

    @property
    def url(self) -> str:
        return f"{self._server.url}/api/share/{self.id}"

    @property
    def socket_url(self) -> str:
        return f"{self._server.url.replace('http', 'ws', 1)}/ws/{self.id}"

    def sync(self, part_id: str, text: str = "") -> None:
        data = [{"type": "part", "data": {"id": part_id, "text": text}}]
        answer = httpx.post(f"{self.url}/sync", json={"secret": self.secret, "data": data})
        assert answer.status_code == 200

    def delete(self) -> None:
        assert httpx.request("DELETE", self.url, json={"secret": self.secret}).status_code == 200


@asynccontextmanager
async def stream(url: str, **headers: str) -> AsyncIterator[AsyncIterator[ServerSent]]:
    """Open an event stream."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        httpx.AsyncClient(timeout=10) as client,
        client.stream("GET", f"{url}/events", headers=names) as answer,
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (
            200,
            "text/event-stream; charset=utf-8",
        )
        yield read_stream(answer.aiter_lines())


async def read_stream(lines: AsyncIterator[str]) -> AsyncIterator[ServerSent]:
    """Yield the events of a stream, as a browser would."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            if "data" in fields:
                yield ServerSent(fields.get("id"), json.loads(fields["data"]))
            fields = {}

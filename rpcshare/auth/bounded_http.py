"""Asking a server of somebody else over HTTP: for a bounded time, and for a bounded answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["TIMEOUT", "Answer", "ask"]

TIMEOUT = 5.0
"""Seconds of one request, however slowly the answer arrives."""

MAX_SIZE = 256 * 1024  # bytes


class Answer(NamedTuple):
    """What was answered."""

    status: int
    body: bytes
    media_type: str


async def ask(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
) -> Answer:
    """Return what ``url`` answers; redirects are not followed.

    Raises:
        ConnectionError, TimeoutError: there was no answer.
        ValueError: it was too large.
    """
    import httpx  # noqa: PLC0415 -- few servers ask anybody, and it takes a while to import

    # Not compressed: a few bytes could become very many before they are counted.
    sent = {"Accept-Encoding": "identity", **(headers or {})}
    try:
        async with (
            asyncio.timeout(TIMEOUT),
            httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as client,
            client.stream(method, url, headers=sent, data=form) as response,
        ):
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_SIZE:
                    raise ValueError(f"the answer is larger than {MAX_SIZE:,} bytes")
            media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            return Answer(response.status_code, bytes(body), media_type)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise ConnectionError(type(exc).__name__) from exc

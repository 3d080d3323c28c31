"""Shares and events as results of RPC calls: encoded once for all readers, large ones in time slices."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rpcshare import jsontext
from rpcshare.errors import ErrorCode
from rpcshare.rpc import JSON, Codec, Preencoded, RpcError
from rpcshare.rpc.sliced_encoding import encode_text
from rpcshare.shares.document import Document
from rpcshare.shares.events import Event, Snapshot, Sync

__all__ = ["LARGE_EVENTS", "Room", "preencoded", "preencoded_document", "preencoded_large"]

LARGEST_DOCUMENT = 128 * 2**20
"""Bytes of a share that one result may bring: on its way it is in memory several times."""

# Bytes of a document that is encoded in one step.
_SHORT = 64 * 1024

LARGE_EVENTS = 64 * 2**20
"""Bytes of large events that may be on their way to all subscriptions of one caller together."""


def preencoded(event: Event) -> Preencoded:
    """Return the event as the wire carries it, encoded once for however many subscribers."""
    forms = event.__dict__
    form = forms.get("preencoded")
    if not isinstance(form, Preencoded):
        if isinstance(event, Snapshot | Sync) and event.is_large:
            # Its text is not kept, and is nothing that the peer refers to parts of.
            form = Preencoded(load=lambda: jsontext.decode(b"".join(event.text_parts())), size=event.size)
        else:
            load = functools.partial(jsontext.decode, event.json)
            form = Preencoded(load=load, size=len(event.json))
        forms["preencoded"] = form
    return form


async def preencoded_document(document: Document, codec: Codec) -> Preencoded:
    """Return the document as the wire carries it, encoded once for however many readers.

    Raises:
        RpcError: it is too large for one result.
    """
    if document.size > LARGEST_DOCUMENT:
        message = (
            f"limit exceeded: bytes of a share in one result (at most {LARGEST_DOCUMENT:,}, it has "
            f"{document.size:,}); GET /api/share/{{id}} has no such limit"
        )
        raise RpcError(message, code=ErrorCode.PAYLOAD_TOO_LARGE.value)
    forms = document.__dict__
    form = forms.get("preencoded")
    if not isinstance(form, Preencoded):
        # Without a reference to the document itself, whose form this is.
        pieces = document.pieces
        form = forms["preencoded"] = Preencoded(
            load=lambda: jsontext.decode(b"".join(pieces())),
            size=document.size,
            count=lambda most: JSON.count(b"".join(pieces()), most),
        )
    if document.size > _SHORT:
        async with _ENCODING.held(document.size):
            await _encode_aside(form, document.text_in_parts, codec, forms)
    return form


async def preencoded_large(event: Event, codec: Codec) -> Preencoded:
    """Return what :func:`preencoded` does, encoded in time slices."""
    form = preencoded(event)
    await _encode_aside(form, event.text_in_parts, codec, event.__dict__)
    return form


async def _encode_aside(
    form: Preencoded, text: Callable[[], jsontext.InParts], codec: Codec, forms: dict[str, object]
) -> None:
    """Have ``form`` encoded in time slices, once for all who want it at the same time."""
    name = codec.subprotocol
    if name in form.encoded:
        return
    making = forms.get(f"encoding {name}")
    if not isinstance(making, asyncio.Task) or making.done():
        making = forms[f"encoding {name}"] = asyncio.create_task(_encode(form, text, codec))
    await asyncio.shield(making)


async def _encode(form: Preencoded, text: Callable[[], jsontext.InParts], codec: Codec) -> None:
    encoded = form.encoded[codec.subprotocol] = await encode_text(text(), codec)
    form.size = len(encoded)


class Room:
    """Memory for what is large and on its way to readers, each of whom has a copy in its connection.

    Who finds none waits, and what happens meanwhile is merged in its subscription.
    """

    def __init__(self, size: int) -> None:
        self._size = size  # bytes
        self._used = 0
        self._waiting: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def held(self, size: int) -> AsyncIterator[None]:
        """Wait until there is room for ``size`` bytes, and have it; what is alone has as much as it takes."""
        while self._used and self._used + size > self._size:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            finally:
                if turn in self._waiting:
                    self._waiting.remove(turn)
        self._used += size
        try:
            yield
        finally:
            self._used -= size
            waiting, self._waiting = self._waiting, []
            for turn in waiting:
                if not turn.done():
                    turn.set_result(None)


# For documents that are being encoded; that comes to its end whatever their readers do.
_ENCODING = Room(LARGE_EVENTS)

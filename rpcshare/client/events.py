"""The events of a share as an asynchronous iterator."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Self

import msgspec

from rpcshare.client.types import ShareEvent
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import RpcError, Stub
from rpcshare.rpc.waiting import Signal

__all__ = ["EventStream"]

# How many events may wait to be taken. Beyond, the server is not answered, and merges what comes
# (PROTOCOL.md, "Subscriptions"); it never drops any of it.
CAPACITY = 16


class EventStream:
    """What happens to one share, from the first event on.

    Iterate over it, in ``async with`` to have it unsubscribe when you leave the loop early. It ends after the
    event ``deleted``, and raises if the subscription fails or its session ends.
    """

    def __init__(self, api: Stub, share_id: str, from_sync_count: int | None) -> None:
        self._api = api
        self._share_id = share_id
        self._from = from_sync_count
        self._subscription: Stub | None = None
        self._events: deque[ShareEvent] = deque()
        # Why no more events will come although the share is still there.
        self._error: Exception | None = None
        self._ended = False
        self._arrived = Signal()
        self._has_room = Signal(is_set=True)

    async def __aenter__(self) -> Self:
        await self._subscribe()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ShareEvent:
        """Return the next event.

        Raises:
            StopAsyncIteration: the share has been deleted, or the stream closed.
            RpcError: the server refused the subscription, or the session has ended.
            msgspec.ValidationError: the server told of something that is no event.
            ShareError: the caller may not read the share any longer.
        """
        if self._subscription is None and not self._ended:
            await self._subscribe()
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()
        event = self._events.popleft()
        self._has_room.set()
        self._ended = self._ended or event.type == "deleted"
        return event

    async def aclose(self) -> None:
        """Unsubscribe. Again is no error."""
        self._ended = True
        self._events.clear()
        self._arrived.set()
        self._has_room.set()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.dispose()

    async def _subscribe(self) -> None:
        arguments: tuple[object, ...] = (self._share_id, self._take)
        if self._from is not None:
            arguments = (*arguments, self._from)
        subscription: Stub = await self._api.subscribe(*arguments)
        self._subscription = subscription
        subscription.on_broken(self._broken)

    async def _take(self, event: object) -> None:
        """Receive one event; answering it late is what slows the server down."""
        if self._ended:
            return
        if isinstance(event, dict) and event.get("type") == "error":
            self._broken(_error_of(event))
            return
        try:
            self._events.append(msgspec.convert(event, ShareEvent))
        except (msgspec.ValidationError, UnicodeEncodeError) as exc:  # half a surrogate pair for a name
            self._broken(exc)
            return
        self._arrived.set()
        if len(self._events) >= CAPACITY:
            self._has_room.clear()
            await self._has_room.wait()

    def _broken(self, error: Exception) -> None:
        self._error = error
        self._arrived.set()
        self._has_room.set()


def _error_of(event: dict[str, Any]) -> Exception:
    """Return the failure that the last event of a subscription tells of."""
    code, message = event.get("code"), str(event.get("message"))
    known = ErrorCode.__members__.get(str(code))
    return RpcError(message, code=str(code)) if known is None else ShareError(known, message)

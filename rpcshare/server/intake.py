"""An end to waiting for bodies: a server that stops does not wait for a request that is half there."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Intake", "IntakeMiddleware"]


class Intake:
    """The requests whose bodies are being waited for."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Task[object]] = set()
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether nothing is waited for any more."""
        return self._is_over

    def end(self) -> None:
        """Have every request that waits for more of its body hear that its client is gone."""
        self._is_over = True
        for task in self._waiting:
            task.cancel()

    async def receive(self, receive: Receive) -> Message:
        """Return what ``receive`` does, unless and until there is no more to wait for."""
        task = asyncio.current_task()
        if task is None or self._is_over:
            return {"type": "http.disconnect"}
        self._waiting.add(task)
        try:
            return await receive()
        except asyncio.CancelledError:
            # As asyncio.timeout() does it: only a cancellation of this object's own making ends here.
            if not self.is_over or task.uncancel() > 0:
                raise
            return {"type": "http.disconnect"}
        finally:
            self._waiting.discard(task)


class IntakeMiddleware:
    """Lets HTTP requests receive by way of an :class:`Intake`."""

    def __init__(self, app: ASGIApp, intake: Intake) -> None:
        self._app = app
        self._intake = intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def receive_while_open() -> Message:
            return await self._intake.receive(receive)

        await self._app(scope, receive_while_open, send)

"""An event loop in another thread, for what a test talks to, whatever the test itself runs on."""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

from anyio.from_thread import start_blocking_portal

T = TypeVar("T")


@contextmanager
def in_other_thread(peer: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Have ``peer`` there, on asyncio, while the block lasts."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(peer) as value:
        yield value

"""What the owners of references have in common that carry out calls on an event loop, with no session."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from rpcshare.rpc.errors import RpcError
from rpcshare.rpc.event_loop import Task, running_loop
from rpcshare.rpc.local_references import Call, LocalReference
from rpcshare.rpc.memory_budget import UNLIMITED
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.reference import Owner, Path, Reference
from rpcshare.rpc.stub import Stub

__all__ = ["EventLoopOwner"]


class EventLoopOwner(Owner):
    """The part of :class:`~rpcshare.rpc.reference.Owner` that needs an event loop and no session."""

    def __init__(self) -> None:
        """Carry out calls on the event loop that runs."""
        super().__init__(UNLIMITED)
        self._loop = running_loop()
        self._near: dict[int, LocalReference] = {}
        self._tasks: set[Task] = set()

    def ask(self, call: Call) -> None:
        """Have ``call`` carried out after all those asked for before."""
        self.run(_carry_out(call))  # tasks begin in the order in which they were made

    def run(self, work: Coroutine[Any, Any, None]) -> Task:
        """Have ``work`` done, which says itself if it fails."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def near(self, target: object) -> LocalReference:
        """Return the one reference to a target or a function of this side."""
        reference = self._near.get(id(target))
        if reference is None:
            reference = self._near[id(target)] = self._reference_to(target)
        return reference

    @abstractmethod
    def _reference_to(self, target: object) -> LocalReference:
        """Return a new reference to ``target``."""

    def forget(self, target: object) -> None:
        """Note that nothing refers to ``target`` any longer."""
        self._near.pop(id(target), None)

    def stream(
        self,
        reference: Reference,
        path: Path,
        arguments: tuple[object, ...],
        settled: Callable[[Exception | None], None],
        *,
        measure: bool,  # noqa: ARG002 -- nothing is sent
    ) -> int | None:
        """Call what is on this side, for how it goes."""
        result = reference.call(path, Payload.lend(self, arguments))

        def observe(outcome: Payload | Exception) -> None:
            settled(outcome if isinstance(outcome, Exception) else None)
            result.release()

        result.when_settled(observe)
        return None

    def when_room(self, callback: Callable[[], None]) -> bool:  # noqa: ARG002 -- nothing is sent
        """Return True: nothing waits to be sent."""
        return True


async def _carry_out(call: Call) -> None:
    try:
        value = call.start()
        if isinstance(value, Awaitable) and not isinstance(value, Stub):
            value = await value
    except Exception as exc:  # noqa: BLE001 -- it is the caller's
        call.reject(exc)
    except BaseException:
        call.reject(RpcError("the call was cancelled"))
        raise
    else:
        call.resolve(value)

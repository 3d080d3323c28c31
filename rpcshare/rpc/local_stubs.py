"""Stubs and promises that belong to no session: made here, and given to as many sessions as one likes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from rpcshare.rpc.budget import UNLIMITED
from rpcshare.rpc.errors import RpcError
from rpcshare.rpc.limits import Limits
from rpcshare.rpc.local_references import Call, LocalReference, ValueReference
from rpcshare.rpc.mapping import apply_map
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.reference import Budget, Instructions, Path, Reference, Releasable
from rpcshare.rpc.stub import Promise, Stub
from rpcshare.rpc.target import RpcTarget, is_function

if TYPE_CHECKING:
    from rpcshare.rpc.errors import SessionClosedError

__all__ = ["LocalOwner", "promise", "stub"]


def stub(target: object) -> Stub:
    """Return a stub for something of this process, which behaves as one for something remote would.

    It can be sent to any session, and to several, in each case as a :class:`Stub` and not as a copy of
    ``target``. A target is disposed of when this stub, each ``dup()`` of it, and what peers hold of it are.

    Args:
        target: a target or a function; or a value, whose properties can be read then.

    Raises:
        RuntimeError: no event loop is running, which calls could be carried out on.
    """
    if isinstance(target, Stub):
        return target.dup()
    owner = LocalOwner()
    if isinstance(target, RpcTarget) or is_function(target):
        return Stub(owner.near(target).retain())
    return Stub(ValueReference(owner, Payload.given(owner, target)))


def promise(awaitable: Awaitable[object]) -> Promise:
    """Return a promise of what ``awaitable`` yields.

    It can be called and sent before that is known; calls on it wait, and take place in order. It may be
    given to several sessions. What is awaited goes on even if nobody waits for it any longer.

    Raises:
        RuntimeError: no event loop is running.
    """
    owner = LocalOwner()

    async def settled() -> Payload:
        payload = Payload.given(owner, await awaitable)
        # From here on its targets are held here, and not by each session that it is sent to.
        payload.own()
        return payload

    call = Call(owner, settled, Payload.given(owner, []))
    owner.ask(call)
    return Promise(call.result)


class LocalOwner:
    """Carries out the calls on stubs that belong to no session, on the event loop on which it was made."""

    limits = Limits()
    account = UNLIMITED

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._near: dict[int, LocalReference] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, call: Call) -> None:
        """Have ``call`` carried out after all those asked for before."""
        task = self._loop.create_task(self._carry_out(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, call: Call) -> None:
        # Tasks begin in the order in which they were made.
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

    def near(self, target: object) -> LocalReference:
        """Return the one reference to a target or a function."""
        reference = self._near.get(id(target))
        if reference is None:
            reference = self._near[id(target)] = LocalReference(self, target)
        return reference

    def forget(self, target: object) -> None:
        """Note that nothing refers to ``target`` any longer."""
        self._near.pop(id(target), None)

    def invoke(self, reference: Reference, path: Path, arguments: tuple[object, ...]) -> Reference:
        """Call what ``path`` of ``reference`` leads to, with arguments that the application keeps."""
        return reference.call(path, Payload.lend(self, arguments))

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
        result = self.invoke(reference, path, arguments)

        def observe(outcome: Payload | Exception) -> None:
            settled(outcome if isinstance(outcome, Exception) else None)
            result.release()

        result.when_settled(observe)
        return None

    def apply_map(
        self,
        value: object,
        captures: list[Reference],
        instructions: Instructions,
        budget: Budget,
        *,
        fixed: bool,
    ) -> Reference:
        """Apply a mapper function to ``value``, or to each element of it; return a hold on the result."""
        return apply_map(self, value, captures, instructions, budget, fixed=fixed)

    def abort(self, error: SessionClosedError) -> None:
        """There is no session to be ended: what went past a limit fails, and nothing else."""

    def when_room(self, callback: Callable[[], None]) -> bool:  # noqa: ARG002 -- nothing is sent
        """Return True: nothing waits to be sent."""
        return True

    def abandon(self, reference: Releasable) -> None:
        """Release ``reference`` soon. Any thread may call this at any time."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(reference.release)

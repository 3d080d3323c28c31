"""Stubs and promises that belong to no session: made here, and given to as many sessions as one likes."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from rpcshare.rpc.event_loop_owner import EventLoopOwner
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


class LocalOwner(EventLoopOwner):
    """Carries out the calls on stubs that belong to no session, on the event loop on which it was made."""

    limits = Limits()

    def _reference_to(self, target: object) -> LocalReference:
        return LocalReference(self, target)

    def invoke(self, reference: Reference, path: Path, arguments: tuple[object, ...]) -> Reference:
        """Call what ``path`` of ``reference`` leads to, with arguments that the application keeps."""
        return reference.call(path, Payload.lend(self, arguments))

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

    def abandon(self, reference: Releasable) -> None:
        """Release ``reference`` soon. Any thread may call this at any time."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(reference.release)

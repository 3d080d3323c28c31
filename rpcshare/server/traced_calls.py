"""What is put around the calls of an RPC session: for limits, its spans, and its lines in the access log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rpcshare.auth.caller import Caller
from rpcshare.rpc import Stub
from rpcshare.rpc.counted_calls import PLAIN, LimitedMethods
from rpcshare.rpc.members import BoundMethod
from rpcshare.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

__all__ = ["Around", "counted", "limited", "traced"]

Function = Callable[..., object]
Around = Callable[[Function], Function]


def counted(around: Around) -> tuple[Around, Callable[[], int]]:
    """Return ``around`` with a count, and what tells it: how many functions it has been given."""
    count = 0

    def counting(function: Function) -> Function:
        nonlocal count
        count += 1
        return around(function)

    return counting, lambda: count


def limited(around: Around, count_request: Callable[[Caller], None]) -> Around:
    """Return ``around`` with ``count_request`` before each call of a target that acts for a caller.

    What that raises is what the call fails with.
    """
    count: Callable[[Any], None] = count_request  # its payers are callers
    return LimitedMethods(around, _payer_of, count).around_call


def _payer_of(target: object) -> Caller | None:
    caller = getattr(target, "caller", None)
    if not isinstance(caller, Caller) or (caller.user is None and caller.key is None):
        return None
    return caller


def traced(around: Around, tracing: Tracing, parent: Context) -> Around:
    """Return ``around`` with a span for each call of an exported method, which belongs to ``parent``."""

    def tracing_around(function: Function) -> Function:
        inner = around(function)
        if not isinstance(function, BoundMethod):
            return inner
        return partial(carry_out, function.method.name, inner)

    def carry_out(name: str, function: Function, *arguments: object) -> object:
        attributes = {"rpc.system": "capnweb", "rpc.method": name}
        span = tracing.begin(f"rpc {name}", attributes, parent)
        with tracing.within(span, ends=False):
            result = function(*arguments)
        if type(result) not in PLAIN and isinstance(result, Awaitable) and not isinstance(result, Stub):
            return _awaited(tracing, span, result)
        span.end()
        return result

    return tracing_around


async def _awaited(tracing: Tracing, span: Span, result: Awaitable[object]) -> object:
    with tracing.within(span, ends=True):
        return await result

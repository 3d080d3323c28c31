"""Operations that the audit log hears of."""

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from rpcshare.auth.audit import REFUSALS, Action, AuditLog
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.share_identity import ShareCredentials

__all__ = ["audited"]


class Audited(Protocol):
    """What has operations, each of which takes the caller first, and then the share's id if there is one."""

    audit: AuditLog


_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S", bound=Audited)
_Operation = Callable[Concatenate[_S, Caller, _P], Awaitable[_R]]
_AuditedOperation = Callable[Concatenate[_S, Caller, _P], Coroutine[Any, Any, _R]]


def audited(
    action: Action, *, only_refusals: bool = False, is_done: Callable[[Any], bool] = lambda _result: True
) -> Callable[[_Operation[_S, _P, _R]], _AuditedOperation[_S, _P, _R]]:
    """Have the audit log told of an operation: that it was done, or refused, or that the store failed.

    Args:
        action: what it is called there.
        only_refusals: whether to say nothing of one that went well: reading and syncing are too common.
        is_done: whether one with this result has changed anything; of one that has not, nothing is said.
    """

    def decorate(operation: _Operation[_S, _P, _R]) -> _AuditedOperation[_S, _P, _R]:
        @wraps(operation)
        async def run(self: _S, caller: Caller, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            # A share that is not made yet has no id.
            named = args[0] if args and action is not Action.SHARE_CREATE else ""
            share = named if isinstance(named, str) else ""
            try:
                result = await operation(self, caller, *args, **kwargs)
            except ShareError as exc:
                if exc.code in REFUSALS:
                    self.audit.refused(action, caller, exc.code, share=share)
                elif exc.code is ErrorCode.STORAGE_UNAVAILABLE and not only_refusals:
                    self.audit.failed(action, caller, exc.code, share=share)
                raise
            if not only_refusals and is_done(result):
                made = result.id if isinstance(result, ShareCredentials) else share
                self.audit.done(action, caller, share=made)
            return result

        return run

    return decorate

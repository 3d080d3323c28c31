"""References to what is on this side: targets, functions and values, and the calls that are made of them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn, cast

from rpcshare.rpc.errors import DisposedError, LimitExceededError, RpcError
from rpcshare.rpc.limits import MAX_DEPTH
from rpcshare.rpc.members import BoundMethod, Function, Method, Property
from rpcshare.rpc.memory_budget import VALUE_BYTES, count_values, too_much
from rpcshare.rpc.mypyc_compat import mypyc_attr
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.preencoded import Preencoded
from rpcshare.rpc.promises import BrokenReference, PendingReference
from rpcshare.rpc.reference import Budget, Instructions, Observer, Owner, Path, Reference
from rpcshare.rpc.stub import Stub, path_of, redirect, reference_of
from rpcshare.rpc.target import RpcTarget, is_function
from rpcshare.rpc.trampoline import in_turn
from rpcshare.rpc.values import UNDEFINED

if TYPE_CHECKING:
    from rpcshare.rpc.session import Session

__all__ = [
    "Call",
    "LocalReference",
    "ValueReference",
    "observe_stub",
    "settled_stub",
    "settled_target",
]

logger = logging.getLogger("rpcshare.rpc")

# Stubs of stubs that are looked through before one is sent; what is behind more of them is sent as a promise.
MAX_LOOKED_THROUGH: Final = 16


class Call:
    """A function of the application, its arguments, and where the result goes.

    A session asks for it; the driver starts it and then reports how it ended, by :meth:`resolve` or
    :meth:`reject`, once. Either disposes of the arguments, except for what the result has of them: a callee
    that keeps a stub keeps a ``dup()``.
    """

    __slots__ = ("arguments", "function", "owner", "result", "session")

    def __init__(self, owner: Owner, function: Callable[..., object], arguments: Payload) -> None:
        self.owner = owner
        self.function = function
        self.arguments = arguments
        self.result = PendingReference(owner)
        # The session that counts it as under way, if one does.
        self.session: Session | None = None

    def start(self) -> object:
        """Call the function and return what it returns, maybe an awaitable. Raises what it raises."""
        arguments = cast("list[object]", self.arguments.value)
        function = self.function
        return function.invoke(arguments) if isinstance(function, Function) else function(*arguments)

    def resolve(self, value: object) -> None:
        """Report that the call returned ``value``; the stubs in it are the session's from here on."""
        payload = value if isinstance(value, Payload) else Payload.given(self.owner, value)
        self.arguments.keep_from(payload)
        if payload.stubs is None and not self.result.is_awaited:
            # Else it is sent at once, and counted by the way.
            try:
                payload.account_for(count_values(value, self.owner.account)[0])
            except LimitExceededError as exc:
                payload.dispose()
                self._finish(BrokenReference(self.owner, too_much(exc)))
                return
        self._finish(ValueReference(self.owner, payload))

    def reject(self, error: Exception) -> None:
        """Report that the call raised ``error``."""
        if isinstance(error, RpcError):
            # It says what it has to say without the frames, which would keep alive what the call had.
            error = error.with_traceback(None)
        self._finish(BrokenReference(self.owner, error))

    def _finish(self, outcome: Reference) -> None:
        if self.session is not None:
            self.session.call_finished()
        self.arguments.dispose()
        self.result.settle(outcome)


@mypyc_attr(allow_interpreted_subclasses=True)
class LocalReference(Reference):
    """A target or a function of this side. There is one for each, however often it is exported."""

    __slots__ = ("target",)

    def __init__(self, owner: Owner, target: object) -> None:
        super().__init__(owner)
        self.refcount = 0  # whoever asked for it takes the first
        self.target = target

    @property
    def is_target(self) -> bool:
        return True

    def passed_on(self) -> None:
        """Take note that a session of another owner refers to the target as well, and disposes of it."""

    def drop(self) -> None:
        self.owner.forget(self.target)
        if isinstance(self.target, RpcTarget):
            in_turn(self._dispose_of_target)  # which may hold another that holds another, and so on

    def _dispose_of_target(self) -> None:
        try:
            self.target.dispose()  # type: ignore[attr-defined]  # it is an RpcTarget
        except Exception:
            # Whoever let go of the last hold is not who could do something about it.
            logger.exception("the dispose() of a target failed")

    def call(self, path: Path, arguments: Payload) -> Reference:
        return _call_within(arguments.owner, self.target, path, arguments)

    def get(self, path: Path) -> Reference:
        return _get_within(self.owner, self.target, path) if path else self.retain()

    def map(
        self, path: Path, captures: list[Reference], instructions: Instructions, budget: Budget
    ) -> Reference:
        return _map_within(self.owner, self.target, path, captures, instructions, budget)

    def when_settled(self, observer: Observer) -> None:
        observe_stub(self, observer)

    def on_broken(self, callback: Callable[[Exception], None]) -> None:
        pass  # what is here does not break


def observe_stub(reference: Reference, observer: Observer) -> None:
    """Tell ``observer`` that ``reference``, which is no promise, stands for itself: its value is a stub."""
    stub = Stub(reference.retain())
    payload = Payload(reference.owner, stub, stubs=[stub], private=True)
    observer(payload)
    payload.dispose()


class ValueReference(Reference):
    """A value that is here: the result of a call, on either side."""

    __slots__ = ("_decoded", "payload")

    def __init__(self, owner: Owner, payload: Payload) -> None:
        super().__init__(owner)
        self.payload = payload
        # Of a value that was encoded before: the payload of what it stands for, once a part is asked for.
        self._decoded: Payload | None = None

    @property
    def is_settled(self) -> bool:
        return True

    def drop(self) -> None:
        self.payload.dispose()
        if self._decoded is not None:
            self._decoded.dispose()

    def call(self, path: Path, arguments: Payload) -> Reference:
        return _call_within(arguments.owner, self.payload.value, path, arguments)

    def _decode(self, encoded: Preencoded) -> Payload:
        """Return the payload of what ``encoded`` stands for: made once, and counted as long as this is there.

        Raises:
            RpcError: it has too many values, or takes too much memory.
        """
        if self._decoded is None:
            account = self.owner.account
            count = encoded.count(account.values)
            try:
                account.copy(count)
                account.require_room(count * VALUE_BYTES + encoded.size)
                decoded = Payload(self.owner, encoded.value, stubs=[])
                decoded.shared = True
                decoded.account_for(count, encoded.size)
            except LimitExceededError as exc:
                raise too_much(exc) from None
            self._decoded = decoded
        return self._decoded

    def get(self, path: Path) -> Reference:
        if not path:
            return self.retain()
        payload = self.payload
        value = payload.value
        if not isinstance(value, Preencoded) and not payload.is_fixed:
            return _get_within(self.owner, value, path)
        try:
            if isinstance(value, Preencoded):
                payload = self._decode(value)
            found, _ = _follow(self.owner, payload.value, path)
        except RpcError as exc:
            return BrokenReference(self.owner, exc)
        return ValueReference(self.owner, payload.part(found))

    def map(
        self, path: Path, captures: list[Reference], instructions: Instructions, budget: Budget
    ) -> Reference:
        payload = self.payload
        value, fixed = payload.value, payload.is_fixed
        if isinstance(value, Preencoded):
            try:
                value, fixed = self._decode(value).value, True
            except RpcError as exc:
                for capture in captures:
                    capture.release()
                return BrokenReference(self.owner, exc)
        elif fixed:
            payload.shared = True
        return _map_within(self.owner, value, path, captures, instructions, budget, fixed=fixed)

    def when_settled(self, observer: Observer) -> None:
        observer(self.payload)

    def on_broken(self, callback: Callable[[Exception], None]) -> None:
        if isinstance(self.payload.value, Stub):
            try:
                _, found, _ = _trace(self.owner, self.payload.value, ())
            except RpcError as exc:
                found = BrokenReference(self.owner, exc)
            if isinstance(found, Reference):
                found.on_broken(callback)
                found.release()


def _call_within(owner: Owner, value: object, path: Path, arguments: Payload) -> Reference:
    """Call what ``path`` of ``value`` leads to."""
    if len(path) == 1 and isinstance(value, RpcTarget):
        member = value.rpc_members.get(path[0])  # type: ignore[arg-type]  # a number is not found
        if isinstance(member, Method):
            return _ask(owner, BoundMethod(member, value), arguments)
    try:
        _, found, rest = _trace(owner, value, path, reader=owner)
    except RpcError as exc:
        arguments.dispose()
        return BrokenReference(owner, exc)
    if isinstance(found, Reference):
        result = found.call(rest, arguments)
        found.release()
        return result
    if not is_function(found):
        arguments.dispose()
        # Behind a property whose value was not known yet, nothing of the path is left.
        name = f"'{'.'.join(map(str, path))}'" if path else "This"
        return BrokenReference(owner, RpcError(f"{name} is not a function.", name="TypeError"))
    return _ask(owner, found, arguments)  # type: ignore[arg-type]  # is_function() says it can be called


def _ask(owner: Owner, function: Callable[..., object], arguments: Payload) -> Reference:
    """Have ``function`` called once the arguments are complete; return a hold on what it will yield."""
    call = Call(owner, function, arguments)
    if arguments.is_complete:
        owner.ask(call)
        return call.result
    arguments.own()

    def ready(error: Exception | None) -> None:
        if error is not None:
            # It fails when its turn comes: rejected here, a chain of such calls would fail recursively.
            call.function = functools.partial(_fail, error)
        owner.ask(call)

    arguments.deliver(ready)
    return call.result


def _fail(error: Exception, *_arguments: object) -> NoReturn:
    raise error.with_traceback(None)  # it may be raised by many


def _get_within(owner: Owner, value: object, path: Path) -> Reference:
    """Return a reference to what ``path`` of ``value`` leads to."""
    try:
        owner, found, rest = _trace(owner, value, path, keep=True)
        if isinstance(found, Reference):
            result = found.get(rest)
            found.release()
            return result
        return ValueReference(owner, Payload.copy_of(owner, found))
    except RpcError as exc:
        return BrokenReference(owner, exc)


def _map_within(
    owner: Owner,
    value: object,
    path: Path,
    captures: list[Reference],
    instructions: Instructions,
    budget: Budget,
    *,
    fixed: bool = False,
) -> Reference:
    """Apply a mapper function to what ``path`` of ``value`` leads to."""
    try:
        owner, found, rest = _trace(owner, value, path)
    except RpcError as exc:
        for capture in captures:
            capture.release()
        return BrokenReference(owner, exc)
    if isinstance(found, Reference):
        result = found.map(rest, captures, instructions, budget)
        found.release()
        return result
    return owner.apply_map(found, captures, instructions, budget, fixed=fixed)


def _trace(
    owner: Owner, value: object, path: Path, *, reader: Owner | None = None, keep: bool = False
) -> tuple[Owner, object, Path]:
    """Walk along ``path`` of ``value``, which ``owner`` has, and through stubs of values that are here too.

    Return what it leads to and who has that; or, with a hold on it, the reference that is to be asked and the
    path from there. Exported properties are read by ``reader``, or else by who has the target. A stub that
    is all that is asked for is looked into as well, unless ``keep``.

    Raises:
        RpcError: as :func:`_follow`; or the peer has made a promise the value of itself.
    """
    # A loop, since a peer may give a promise a promise as its value, and so on for as long as it likes.
    passed: list[Stub] = []
    # Where the walk was after 1, 2, 4, 8 … steps, to notice that it comes there again (Brent, 1980).
    steps, mark_at = 0, 1
    mark: Reference | None = None
    marked: Path = ()
    longest = len(path) + MAX_DEPTH
    while True:
        found, rest = _follow(reader or owner, value, path)
        if not isinstance(found, Stub):
            return owner, found, rest
        behind = path_of(found)
        if found is not value or behind:
            passed = []
        if not behind:
            passed.append(found)
        path = (*behind, *rest)
        reference = reference_of(found)
        while (resolution := reference.resolution) is not None:
            reference = resolution
        if not isinstance(reference, ValueReference) or (keep and not path):
            if len(passed) > 1:
                _shorten(passed, reference)
            return owner, reference.retain(), path
        if (reference is mark and path == marked) or len(path) > longest:
            error = RpcError("a promise stands for itself")
            _shorten(passed, BrokenReference(owner, error))
            raise error
        steps += 1
        if steps == mark_at:
            mark, marked, mark_at = reference, path, 2 * mark_at
        owner, value = reference.owner, reference.payload.value


def settled_stub(stub: Stub) -> Reference | None:
    """Return what ``stub`` is known to stand for if that is a target, of any side; with no new hold on it."""
    path: Path = ()
    for _ in range(MAX_LOOKED_THROUGH):
        try:
            reference, path = reference_of(stub), (*path_of(stub), *path)
        except DisposedError:
            return None  # whoever asks for it learns of that
        while (resolution := reference.resolution) is not None:
            reference = resolution
        if not isinstance(reference, ValueReference):
            return reference if reference.is_target and not path else None
        value = reference.payload.value
        while path and isinstance(value, dict | list | tuple):
            value, path = _item(value, path[0]), path[1:]
        if not isinstance(value, Stub):
            return None
        stub = value
    return None


def settled_target(reference: Reference) -> RpcTarget | None:
    """Return the target of this side that ``reference`` is known to stand for; None if there is none."""
    while (resolution := reference.resolution) is not None:
        reference = resolution
    if isinstance(reference, ValueReference):
        value = reference.payload.value
        if isinstance(value, RpcTarget):
            return value
        found = settled_stub(value) if isinstance(value, Stub) else None
        if found is None:
            return None
        reference = found
    target = reference.target if isinstance(reference, LocalReference) else None
    return target if isinstance(target, RpcTarget) else None


def _shorten(chain: list[Stub], end: Reference) -> None:
    """Have each stub in ``chain``, which stands for the next, refer to ``end``, to which the last refers.

    Who calls through a long chain often would walk along all of it each time.
    """
    passed = [redirect(stub, end.retain()) for stub in chain if reference_of(stub).owner is end.owner]
    for reference in passed:
        reference.release()


def _follow(owner: Owner, value: object, path: Path) -> tuple[object, Path]:
    """Walk along ``path``; return what it leads to, or what is on the way and the path from there.

    On the way may be a stub, or an exported property: a reference to what it will turn out to have, with a
    hold on it. Otherwise only what the wire would carry has properties: entries of a dict or a list.

    Raises:
        RpcError: a property of ``undefined``, as in JavaScript.
    """
    for index, name in enumerate(path):
        if isinstance(value, Stub | PendingReference):
            return value, path[index:]
        if isinstance(value, dict | list | tuple):
            value = _item(value, name)
        elif isinstance(value, RpcTarget):
            value = _member(owner, value, name)
        elif value is UNDEFINED:
            raise RpcError(f"Cannot read properties of undefined (reading '{name}')", name="TypeError")
        else:
            value = UNDEFINED
    return value, ()


def _item(value: dict[object, object] | list[object] | tuple[object, ...], name: str | int) -> object:
    """Return the entry ``name`` of a container, or ``undefined``."""
    if isinstance(value, dict):
        return value.get(name, UNDEFINED) if isinstance(name, str) else UNDEFINED
    in_range = isinstance(name, int) and 0 <= name < len(value)
    return value[int(name)] if in_range else UNDEFINED


def _member(owner: Owner, target: RpcTarget, name: str | int) -> object:
    member = target.rpc_members.get(name) if isinstance(name, str) else None
    if isinstance(member, Method):
        return BoundMethod(member, target)
    if isinstance(member, Property):
        # A property is read when the calls that arrived before it have begun.
        read = Call(owner, functools.partial(_read, owner, member, target), Payload(owner, [], stubs=[]))
        owner.ask(read)
        return read.result
    return UNDEFINED


def _read(owner: Owner, member: Property, target: RpcTarget) -> Payload:
    # What a property has stays the application's, unlike what a method returns.
    return Payload.copy_of(owner, member.function(target))

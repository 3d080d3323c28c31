"""``map``, as the called side sees it: a recorded function that is applied to a value, or to each of a list.

A short message can ask for much here: a function is applied to every element of a list, may hold another,
and refers to values as often as it likes, each time for a copy. So all that it takes is counted against one
budget for each message (PROTOCOL.md, "remap").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from rpcshare.rpc.decoding import Decoder
from rpcshare.rpc.errors import LimitExceededError, ProtocolError, RpcError
from rpcshare.rpc.limits import MAX_DEPTH
from rpcshare.rpc.local_references import ValueReference
from rpcshare.rpc.memory_budget import count_values, too_much
from rpcshare.rpc.payload import STUB_VALUES, Located, Payload
from rpcshare.rpc.promises import BrokenReference
from rpcshare.rpc.reference import Budget, Instructions, Reference
from rpcshare.rpc.stub import Disposable, path_of, reference_of
from rpcshare.rpc.values import UNDEFINED

if TYPE_CHECKING:
    from rpcshare.rpc.limits import Limits
    from rpcshare.rpc.local_stubs import LocalOwner
    from rpcshare.rpc.session import Session

__all__ = ["MapBudget", "apply_map"]

# What a step may copy: so many values, within each other or not, or eight times as many characters.
NODES_PER_STEP = 64
NODES_PER_CHARACTER = 1 / 8

# How many levels of nesting a map within another counts for. So the limit is reached before that of Python on
# recursion, which is at about 109 maps, and which compiled code does not have from Python 3.12 on.
LEVELS_OF_MAP = 4


class MapLimitError(LimitExceededError):
    """A message asks for more than its mapper functions may take."""


class MapBudget:
    """How many steps the mapper functions of one message may still take, maps within them included.

    An instruction is a step, and more than one if much has to be copied for it. Maps within each other are
    applied within each other, so they are bounded as what is nested is.
    """

    def __init__(self, steps: int, depth: int = MAX_DEPTH) -> None:
        self._bound = steps
        self._left = steps
        self._max_depth = depth
        self._depth = 0

    def enter(self) -> None:
        """Begin a map, within those that have begun; :meth:`leave` ends it, even if it may not begin.

        Raises:
            LimitExceededError: they are too many.
        """
        self._depth += LEVELS_OF_MAP
        if self._depth > self._max_depth:
            raise MapLimitError("nesting depth", self._max_depth)

    def leave(self) -> None:
        """End a map."""
        self._depth -= LEVELS_OF_MAP

    def spend(self, steps: int) -> None:
        """Take so many steps.

        Raises:
            LimitExceededError: they were too many.
        """
        if self._bound:
            self._left -= steps
            if self._left < 0:
                raise MapLimitError("map steps", self._bound)


class _Function:
    """A mapper function, with what is the same for every element."""

    def __init__(
        self,
        session: Session | LocalOwner,
        captures: list[Reference],
        instructions: Instructions,
        *,
        fixed: bool,
    ) -> None:
        self.session = session
        # Whether nobody changes the value that it is applied to.
        self.fixed = fixed
        # Each with the steps that it takes to copy it.
        self.captures = [(capture, _steps_to_read(capture)) for capture in captures]
        self.instructions = [(each, 1 + _steps_to_copy(each, NODES_PER_CHARACTER)) for each in instructions]


def apply_map(
    session: Session | LocalOwner,
    value: object,
    captures: list[Reference],
    instructions: Instructions,
    budget: Budget,
    *,
    fixed: bool,
) -> Reference:
    """Apply a mapper function that the peer recorded; return a hold on what comes of it.

    A list is mapped element by element; null and undefined are passed on; anything else is one element. If
    ``value`` is ``fixed``, the result may have parts of it.
    """
    try:
        budget.enter()
        if value is None or value is UNDEFINED:
            payload = Payload.given(session, value)
        else:
            function = _Function(session, captures, instructions, fixed=fixed)
            if isinstance(value, list | tuple):
                payload = _apply_to_each(function, value, budget)
            else:
                payload = _Application(function, budget, value).run()
    except MapLimitError as exc:
        session.abort(exc)
        return BrokenReference(session, exc)
    except LimitExceededError as exc:
        return BrokenReference(session, too_much(exc))
    except RpcError as exc:
        return BrokenReference(session, exc)
    except RecursionError:
        exceeded = LimitExceededError("nesting depth", session.limits.depth)
        session.abort(exceeded)
        return BrokenReference(session, exceeded)
    finally:
        budget.leave()
        for capture in captures:
            capture.release()
    return ValueReference(session, payload)


def _apply_to_each(function: _Function, values: Sequence[object], budget: Budget) -> Payload:
    results: list[object] = []
    stubs: list[Disposable] = []
    whole = Payload(function.session, results, stubs=stubs, private=True)
    held = 1
    try:
        for index, value in enumerate(values):
            part = _Application(function, budget, value).run()
            results.append(part.value)
            held += 1 + part.values
            whole.shared = whole.shared or part.shared
            stubs.extend(part.stubs or ())
            for container, key, promise in part.promises:
                place = (results, index) if container is part else (container, key)
                whole.promises.append((*place, promise))
        whole.account_for(held)
    except BaseException:
        whole.dispose()
        raise
    return whole


class _Application:
    """One run of a mapper function. Its instructions refer to its own table, not to the session's.

    0 is the element, 1, 2, … are the results of the instructions before, -1, -2, … the captures.
    """

    def __init__(self, function: _Function, budget: Budget, element: object) -> None:
        self._session = function.session
        self._function = function
        self._budget = budget
        # What the instructions yielded, each with the steps that it takes to copy it.
        self._results: list[tuple[Reference, int]] = []
        count, is_plain = count_values(element, self._session.account)
        budget.spend(count // NODES_PER_STEP)
        if function.fixed and is_plain:
            payload = Payload(self._session, element, stubs=[])
            payload.shared = True
        else:
            payload = Payload.copy_of(self._session, element)
        self._results.append((ValueReference(self._session, payload), count // NODES_PER_STEP))

    def run(self) -> Payload:
        """Evaluate the instructions in order; return the value of the last.

        Raises:
            ProtocolError: an instruction is malformed.
        """
        instructions = self._function.instructions
        try:
            for instruction, steps in instructions[:-1]:
                self._budget.spend(steps)
                self._add(self._evaluate(_copied(instruction)))
            last, steps = instructions[-1]
            self._budget.spend(steps)
            payload = Decoder(self._session, self).decode(_copied(last))
            _put_what_is_here(payload)
            return payload
        finally:
            for result, _ in self._results:
                result.release()

    def _add(self, result: Reference) -> None:
        self._results.append((result, _steps_to_read(result)))

    def _evaluate(self, expression: object) -> Reference:
        decoder = Decoder(self._session, self)
        reference = decoder.reference(expression)
        if reference is not None:
            return reference
        payload = decoder.decode(expression)
        _put_what_is_here(payload)
        return ValueReference(self._session, payload)

    # What the decoder asks, as of a session.

    @property
    def limits(self) -> Limits:
        """Those of the session."""
        return self._session.limits

    @property
    def max_depth(self) -> int:
        """That of any session."""
        return min(self.limits.depth or MAX_DEPTH, MAX_DEPTH)

    def exported(self, number: int) -> Reference:
        """Return what an instruction refers to by ``number``, with no new hold on it."""
        table = self._function.captures if number < 0 else self._results
        index = -number - 1 if number < 0 else number
        if index >= len(table):
            raise ProtocolError(f"a mapper function refers to {number}, which it does not have")
        reference, steps = table[index]
        self._budget.spend(steps)
        return reference

    def import_stub(self, _number: int) -> NoReturn:
        """Refuse: what a mapper function uses, it captures."""
        raise ProtocolError("a mapper function cannot export anything")

    def import_promise(self, _number: int) -> NoReturn:
        """Refuse: what a mapper function uses, it captures."""
        raise ProtocolError("a mapper function cannot export anything")

    def take_pipe(self, _number: int) -> NoReturn:
        """Refuse: a pipe is read once."""
        raise ProtocolError("a mapper function cannot read a stream")

    def collect_blob(self, _number: int, _content_type: str) -> NoReturn:
        """Refuse: a pipe is read once."""
        raise ProtocolError("a mapper function cannot read a stream")

    def take_size(self) -> int:
        """Return 0: the instructions are part of a message that has been counted."""
        return 0

    def map_budget(self) -> Budget:
        """Return what is left: maps within a map spend from the same."""
        return self._budget


def _copied(expression: object) -> object:
    """Return a copy of an expression, which decoding uses up."""
    if isinstance(expression, list):
        return [_copied(item) for item in expression]
    if isinstance(expression, dict):
        return {name: _copied(item) for name, item in expression.items()}
    return expression


def _put_what_is_here(payload: Payload) -> None:
    """Put in place the values of promises that are here already, as those of properties of an element are.

    Each would be sent on its own otherwise, for each element.
    """
    left: list[Located] = []
    put: set[int] = set()
    for container, key, promise in payload.promises:
        reference = reference_of(promise)
        if path_of(promise) or not isinstance(reference, ValueReference) or reference.payload.promises:
            left.append((container, key, promise))
            continue
        here = reference.payload
        if here.is_fixed:
            here.shared = payload.shared = True
        else:
            here = Payload.copy_of(payload.owner, here.value)
            payload.values += here.values
            if payload.stubs is not None and here.stubs:
                payload.stubs += here.stubs
        if isinstance(container, Payload):
            container.value = here.value
        else:
            container[key] = here.value  # type: ignore[call-overload, index]  # a list has int keys
        put.add(id(promise))
        payload.values -= STUB_VALUES
        promise.dispose()
    payload.promises = left
    if put and payload.stubs is not None:
        payload.stubs = [stub for stub in payload.stubs if id(stub) not in put]


def _steps_to_read(reference: Reference) -> int:
    """Return the steps that it takes to copy what ``reference`` refers to: none if it is not a value."""
    return _steps_to_copy(reference.payload.value) if isinstance(reference, ValueReference) else 0


def _steps_to_copy(value: object, per_character: float = 0) -> int:
    """Return the steps that it takes to copy ``value``, whose strings are not copied unless told so."""
    nodes = 0.0
    left = [value]
    while left:
        item = left.pop()
        nodes += 1
        if isinstance(item, dict):
            left.extend(item.values())
        elif isinstance(item, list | tuple):
            left.extend(item)
        elif per_character and isinstance(item, str | bytes):
            nodes += len(item) * per_character
    return int(nodes) // NODES_PER_STEP

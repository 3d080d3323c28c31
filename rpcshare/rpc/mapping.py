"""``map``: a function that is recorded here, sent as data, and applied where the values are.

``promise.map(lambda user: {"id": user.id, "name": api.nameOf(user.id)})`` calls the function once, with a
placeholder. What it does with placeholders and stubs is recorded as a list of instructions (PROTOCOL.md,
"remap"), which the peer then applies to each element: one round trip, however many elements there are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from rpcshare.rpc.decoding import Decoder
from rpcshare.rpc.encoding import Encoder, Job
from rpcshare.rpc.errors import EncodeError, LimitExceededError, ProtocolError, RpcError
from rpcshare.rpc.local import BrokenReference, ValueReference
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.reference import (
    Budget,
    Instructions,
    Observer,
    Path,
    Reference,
    Releasable,
    recording,
)
from rpcshare.rpc.streams import ReadableStream, WritableStream
from rpcshare.rpc.stub import Disposable, Promise, Stub, path_of, reference_of
from rpcshare.rpc.values import UNDEFINED

if TYPE_CHECKING:
    from rpcshare.rpc.limits import Limits
    from rpcshare.rpc.session import Session

__all__ = ["MapBudget", "apply_map", "record_map"]


def record_map(stub: Stub, function: Callable[[Promise], object]) -> Promise:
    """Return a promise of what ``function`` makes of each element that ``stub`` stands for.

    Raises:
        TypeError: the function is asynchronous.
        EncodeError: it returned, or passed to a call, what cannot be part of a recording.
    """
    outer = recording.get()
    recorder = Recorder(outer if isinstance(outer, Recorder) else None)
    token = recording.set(recorder)
    try:
        result = function(Promise(_Placeholder(recorder, 0)))
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("a mapper function is recorded, so it cannot be async")
        recorder.finish(result)
    finally:
        recording.reset(token)
    return Promise(recorder.send(stub))


class Recorder:
    """One mapper function being recorded. It stands in for the owner of the placeholders in it."""

    def __init__(self, parent: Recorder | None) -> None:
        self._parent = parent
        self._instructions: list[object] = []
        # References from outside that the function uses, numbered from -1 down, each with one hold.
        self._captures: list[Reference] = []
        self._capture_ids: dict[Reference, int] = {}

    def invoke(self, reference: Reference, path: Path, arguments: tuple[object, ...]) -> Reference:
        """Record a call."""
        encoded = self._encoder().encode_arguments(arguments)
        return self.record(["pipeline", self.number_of(reference), list(path), encoded])

    def finish(self, result: object) -> None:
        """Record what the function returns, its last instruction."""
        self._instructions.append(self._encoder().encode(result))

    def send(self, stub: Stub) -> Reference:
        """Have the recording applied to what ``stub`` stands for; return a hold on what comes of it."""
        reference, path = reference_of(stub), path_of(stub)
        if self._parent is None:
            return reference.map(path, self._captures, self._instructions, MapBudget(0))
        numbers = [["import", self._parent.number_of(capture)] for capture in self._captures]
        for capture in self._captures:
            capture.release()
        subject = self._parent.number_of(reference)
        return self._parent.record(["remap", subject, list(path), numbers, self._instructions])

    def record(self, instruction: list[object]) -> Reference:
        """Record one instruction; return the placeholder for what it will yield."""
        self._instructions.append(instruction)
        return _Placeholder(self, len(self._instructions))

    def number_of(self, reference: Reference) -> int:
        """Return the number by which instructions refer to ``reference``, capturing it if need be."""
        if isinstance(reference, _Placeholder) and reference.recorder is self:
            return reference.number
        number = self._capture_ids.get(reference)
        if number is None:
            self._captures.append(reference.retain())
            number = self._capture_ids[reference] = -len(self._captures)
        return number

    def _encoder(self) -> Encoder:
        payload = Payload(self, None, stubs=[], lent=True)
        return Encoder(self, max_depth=256, raw_bytes=False, payload=payload)

    # What the encoder asks, as of a session.

    def export_stub(self, stub: Stub, _exported: list[int]) -> list[object]:
        """Return the expression for a placeholder, or for a stub that is captured."""
        number = self.number_of(reference_of(stub))
        if not isinstance(stub, Promise):
            return ["import", number]
        path = path_of(stub)
        return ["pipeline", number, list(path)] if path else ["pipeline", number]

    def export_target(self, _target: object, _payload: Payload, _exported: list[int]) -> NoReturn:
        """Refuse: the peer that applies the recording could not tell one element's from another's."""
        raise EncodeError("a mapper function cannot make a target or a function; let it use a stub of one")

    def export_readable(self, _stream: ReadableStream) -> NoReturn:
        """Refuse: one stream cannot go to every element."""
        raise EncodeError("a mapper function cannot send a stream")

    def export_writable(self, _stream: WritableStream, _exported: list[int]) -> NoReturn:
        """Refuse: one stream cannot go to every element."""
        raise EncodeError("a mapper function cannot send a stream")

    def run(self, _job: Job) -> NoReturn:
        """Nothing runs while a function is recorded."""
        raise _misused()

    def unexport(self, exported: list[int]) -> None:
        """Nothing is exported by a recording."""

    def describe(self, error: BaseException) -> RpcError:
        """Return an error as it is."""
        return error if isinstance(error, RpcError) else RpcError(str(error))

    # What the placeholders ask, as of their owner.

    def ask(self, _call: object) -> NoReturn:
        """Nothing is carried out while a function is recorded."""
        raise _misused()

    def near(self, _target: object) -> NoReturn:
        """There are no targets in a recording."""
        raise _misused()

    def forget(self, target: object) -> None:
        """Nothing is kept."""

    def apply_map(
        self,
        _value: object,
        _captures: list[Reference],
        _instructions: Instructions,
        _budget: Budget,
    ) -> NoReturn:
        """Nothing is applied while a function is recorded."""
        raise _misused()

    def stream(
        self,
        _reference: Reference,
        _method: str,
        _arguments: tuple[object, ...],
        _settled: Callable[[Exception | None], None],
    ) -> NoReturn:
        """There are no streams in a recording."""
        raise _misused()

    def abandon(self, reference: Releasable) -> None:
        """A placeholder keeps nothing alive."""


class _Placeholder(Reference):
    """Stands for a value that there will be when the recording is applied."""

    __slots__ = ("number", "recorder")

    def __init__(self, recorder: Recorder, number: int) -> None:
        super().__init__(recorder)
        self.recorder = recorder
        self.number = number

    def drop(self) -> None:
        """A placeholder keeps nothing alive."""

    def get(self, path: Path) -> Reference:
        """Return another hold, or record that a property is read."""
        return self.recorder.record(["pipeline", self.number, list(path)]) if path else self.retain()

    def call(self, _path: Path, _arguments: Payload) -> NoReturn:
        """Calls are recorded before they come here."""
        raise _misused()

    def map(
        self,
        _path: Path,
        _captures: list[Reference],
        _instructions: Instructions,
        _budget: Budget,
    ) -> NoReturn:
        """Maps are recorded before they come here."""
        raise _misused()

    def when_settled(self, _observer: Observer) -> NoReturn:
        """There is no value to wait for."""
        raise _misused()

    def on_broken(self, _callback: Callable[[Exception], None]) -> NoReturn:
        """There is nothing that could break."""
        raise _misused()


def _misused() -> RpcError:
    return RpcError(
        "a mapper function gets placeholders: it can call them and read their properties, no more"
    )


class MapBudget:
    """How many instructions the mapper function of one message may still take, maps within it included."""

    def __init__(self, steps: int) -> None:
        self._bound = steps
        self._left = steps

    def spend(self) -> None:
        """Take one step.

        Raises:
            LimitExceededError: it was one too many.
        """
        if self._bound:
            self._left -= 1
            if self._left < 0:
                raise LimitExceededError("map steps", self._bound)


def apply_map(
    session: Session,
    value: object,
    captures: list[Reference],
    instructions: Instructions,
    budget: Budget,
) -> Reference:
    """Apply a mapper function that the peer recorded; return a hold on what comes of it.

    A list is mapped element by element; null and undefined are passed on; anything else is one element.
    """
    try:
        if value is None or value is UNDEFINED:
            payload = Payload.given(session, value)
        elif isinstance(value, list | tuple):
            payload = _apply_to_each(session, value, captures, instructions, budget)
        else:
            payload = _Application(session, captures, budget, value).run(instructions)
    except LimitExceededError as exc:
        session.abort(exc)
        return BrokenReference(session, exc)
    except RpcError as exc:
        return BrokenReference(session, exc)
    except RecursionError:
        exceeded = LimitExceededError("nesting depth", session.limits.depth)
        session.abort(exceeded)
        return BrokenReference(session, exceeded)
    finally:
        for capture in captures:
            capture.release()
    return ValueReference(session, payload)


def _apply_to_each(
    session: Session,
    values: Sequence[object],
    captures: list[Reference],
    instructions: Instructions,
    budget: Budget,
) -> Payload:
    results: list[object] = []
    stubs: list[Disposable] = []
    whole = Payload(session, results, stubs=stubs, private=True)
    try:
        for index, value in enumerate(values):
            part = _Application(session, captures, budget, value).run(instructions)
            results.append(part.value)
            stubs.extend(part.stubs or ())
            for container, key, promise in part.promises:
                place = (results, index) if container is part else (container, key)
                whole.promises.append((*place, promise))
    except BaseException:
        whole.dispose()
        raise
    return whole


class _Application:
    """One run of a mapper function. Its instructions refer to its own table, not to the session's.

    0 is the element, 1, 2, … are the results of the instructions before, -1, -2, … the captures.
    """

    def __init__(self, session: Session, captures: list[Reference], budget: Budget, element: object) -> None:
        self._session = session
        self._captures = captures
        self._budget = budget
        self._results: list[Reference] = [ValueReference(session, Payload.copy_of(session, element))]

    def run(self, instructions: Instructions) -> Payload:
        """Evaluate the instructions in order; return the value of the last.

        Raises:
            ProtocolError: an instruction is malformed.
        """
        try:
            for instruction in instructions[:-1]:
                self._results.append(self._evaluate(instruction))
            self._budget.spend()
            return Decoder(self._session, self).decode(_copied(instructions[-1]))
        finally:
            for result in self._results:
                result.release()

    def _evaluate(self, instruction: object) -> Reference:
        self._budget.spend()
        decoder = Decoder(self._session, self)
        expression = _copied(instruction)
        reference = decoder.reference(expression)
        if reference is not None:
            return reference
        return ValueReference(self._session, decoder.decode(expression))

    # What the decoder asks, as of a session.

    @property
    def limits(self) -> Limits:
        """Those of the session."""
        return self._session.limits

    def exported(self, number: int) -> Reference:
        """Return what an instruction refers to by ``number``, with no new hold on it."""
        table = self._captures if number < 0 else self._results
        index = -number - 1 if number < 0 else number
        if index >= len(table):
            raise ProtocolError(f"a mapper function refers to {number}, which it does not have")
        return table[index]

    def import_stub(self, _number: int) -> NoReturn:
        """Refuse: what a mapper function uses, it captures."""
        raise ProtocolError("a mapper function cannot export anything")

    def import_promise(self, _number: int) -> NoReturn:
        """Refuse: what a mapper function uses, it captures."""
        raise ProtocolError("a mapper function cannot export anything")

    def take_pipe(self, _number: int) -> NoReturn:
        """Refuse: a pipe is read once."""
        raise ProtocolError("a mapper function cannot read a stream")

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

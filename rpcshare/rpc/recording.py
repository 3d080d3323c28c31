"""``map``, as the caller sees it: a function that is recorded here, to be applied where the values are.

``promise.map(lambda user: {"id": user.id, "name": api.nameOf(user.id)})`` calls the function once, with a
placeholder. What it does with placeholders and stubs is recorded as a list of instructions (PROTOCOL.md,
"remap"), which the peer then applies to each element (:mod:`~rpcshare.rpc.mapping`): one round trip, however
many elements there are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NoReturn

from rpcshare.rpc.encoding import Encoder, Job
from rpcshare.rpc.errors import EncodeError, RpcError
from rpcshare.rpc.local_references import settled_stub
from rpcshare.rpc.mapping import MapBudget
from rpcshare.rpc.memory_budget import UNLIMITED
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.reference import (
    Budget,
    Instructions,
    Observer,
    Owner,
    Path,
    Reference,
    Releasable,
    recording,
)
from rpcshare.rpc.streams import ReadableStream, WritableStream
from rpcshare.rpc.stub import Promise, Stub, path_of, reference_of

__all__ = ["record_map"]


def record_map(stub: Stub, function: Callable[[Promise], object]) -> Promise:
    """Return a promise of what ``function`` makes of each element that ``stub`` stands for.

    Raises:
        TypeError: the function is asynchronous.
        EncodeError: it returned, or passed to a call, what cannot be part of a recording.
    """
    outer = recording.get()
    recorder = Recorder(stub, outer if isinstance(outer, Recorder) else None)
    token = recording.set(recorder)
    try:
        result = function(Promise(_Placeholder(recorder, 0)))
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("a mapper function is recorded, so it cannot be async")
        return Promise(recorder.finish(result))
    finally:
        recording.reset(token)
        recorder.close()


class Recorder(Owner):
    """One mapper function being recorded. It stands in for the owner of the placeholders in it.

    Args:
        stub: what the function is to be applied to.
        parent: the recorder of the function in which this one is recorded, if there is one.
    """

    def __init__(self, stub: Stub, parent: Recorder | None) -> None:
        super().__init__(UNLIMITED)
        self._parent = parent
        self._subject, self._path = reference_of(stub), path_of(stub)
        # By which number the function around this one knows the subject.
        self._subject_number = parent.number_of(self._subject) if parent else 0
        self._instructions: list[object] = []
        # References from outside that the function uses, numbered from -1 down: each with a hold or, in a
        # function within another, the number that it has there.
        self._captures: list[Reference] = []
        self._outer_numbers: list[int] = []
        self._capture_ids: dict[Reference, int] = {}
        self._is_closed = False

    def invoke(self, reference: Reference, path: Path, arguments: tuple[object, ...]) -> Reference:
        """Record a call."""
        encoded = self._encoder().encode_arguments(arguments)
        return self.record(["pipeline", self.number_of(reference), list(path), encoded])

    def finish(self, result: object) -> Reference:
        """Have the recording applied to its subject; return a hold on what comes of it.

        Args:
            result: what the function returned, which makes the last instruction.
        """
        self._instructions.append(self._encoder().encode(result))
        path = list(self._path)
        if self._parent is not None:
            captures = [["import", number] for number in self._outer_numbers]
            return self._parent.record(["remap", self._subject_number, path, captures, self._instructions])
        captured, self._captures = self._captures, []
        return self._subject.map(self._path, captured, self._instructions, MapBudget(0))

    def close(self) -> None:
        """Record nothing more: the function has returned, or failed."""
        self._is_closed = True
        captures, self._captures = self._captures, []
        for capture in captures:
            capture.release()

    def record(self, instruction: list[object]) -> Reference:
        """Record one instruction; return the placeholder for what it will yield."""
        self.require_open()
        self._instructions.append(instruction)
        return _Placeholder(self, len(self._instructions))

    def require_open(self) -> None:
        """Refuse what comes when the function has returned.

        Raises:
            RpcError: it has.
        """
        if self._is_closed:
            raise _misused()

    def number_of(self, reference: Reference) -> int:
        """Return the number by which instructions refer to ``reference``, capturing it if need be."""
        if isinstance(reference, _Placeholder) and reference.recorder is self:
            return reference.number
        if isinstance(reference, _Placeholder) and self._parent is None:
            raise _misused()  # it is that of another function, which this one is not part of
        number = self._capture_ids.get(reference)
        if number is None:
            if self._parent is not None:
                self._outer_numbers.append(self._parent.number_of(reference))
            self._captures.append(reference.retain())
            number = self._capture_ids[reference] = -len(self._captures)
        return number

    def _encoder(self) -> Encoder:
        payload = Payload(self, None, stubs=[], lent=True)
        return Encoder(self, max_depth=256, raw_bytes=False, payload=payload)

    # What the encoder asks, as of a session.

    def export_stub(self, stub: Stub, _exported: list[int]) -> list[object]:
        """Return the expression for a placeholder, or for a stub that is captured."""
        target = settled_stub(stub)
        if target is not None:
            return ["import", self.number_of(target)]
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

    def rewrite(self, _error: BaseException) -> None:
        """An error in a recording is sent as it is."""

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
        *,
        fixed: bool,  # noqa: ARG002 -- nothing is looked at
    ) -> NoReturn:
        """Nothing is applied while a function is recorded."""
        raise _misused()

    def stream(
        self,
        _reference: Reference,
        _path: Path,
        _arguments: tuple[object, ...],
        _settled: Callable[[Exception | None], None],
        *,
        measure: bool,  # noqa: ARG002 -- nothing is sent
    ) -> NoReturn:
        """There are no streams in a recording."""
        raise _misused()

    def when_room(self, callback: Callable[[], None]) -> bool:  # noqa: ARG002 -- nothing is sent
        """Return True: nothing waits to be sent."""
        return True

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
        if path:
            return self.recorder.record(["pipeline", self.number, list(path)])
        self.recorder.require_open()
        return self.retain()

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

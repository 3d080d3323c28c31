"""Values on their way between the application and a session, with the stubs in them accounted for."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from rpcshare.rpc.errors import LimitExceededError, RpcError, too_deep
from rpcshare.rpc.limits import MAX_CHAIN, MAX_DEPTH, PROMISE_WEIGHT
from rpcshare.rpc.memory_budget import VALUE_BYTES, Charge, is_leaf, too_much
from rpcshare.rpc.stub import Disposable, Promise, Shared, Stub, path_of, reference_of, take_reference
from rpcshare.rpc.target import RpcTarget, is_function, passed

if TYPE_CHECKING:
    from rpcshare.rpc.reference import Observer, Owner, Reference

__all__ = [
    "STUB_VALUES",
    "Container",
    "Located",
    "Payload",
    "dispose_of_targets",
    "notify",
    "settle",
    "when_room",
]

Container: TypeAlias = "list[object] | dict[str, object] | Payload"
Located: TypeAlias = "tuple[Container, object, Promise]"
"""A promise and the place its value belongs at; in a payload itself that is ``value``."""

STUB_VALUES: Final = 8
"""For how many values a stub counts, with the reference behind it."""


class Payload:
    """The arguments of a call, or the value of a promise.

    It comes from one of three sides, and that decides whose the stubs in it are:

    - *received* from the peer: the value is this session's alone, and the payload owns each stub in it;
    - *lent* by the application, as arguments: the stubs stay the application's, and so does the
      value, which is copied if it has to outlive the call that lent it. The targets in it are given, since
      each is disposed of when the callee lets go of it; also if there is no callee in the end;
    - *given* by the application, as a result: the payload owns the stubs in it, but may share the value.

    Until a payload that the application made is encoded or copied, nobody has looked for stubs in it: most
    have none, and the encoder walks the whole value anyway.
    """

    __slots__ = (
        "_holds",
        "_promises",
        "charge",
        "delivery",
        "failure",
        "is_handed_over",
        "is_taken",
        "lent",
        "owner",
        "private",
        "shared",
        "stubs",
        "value",
        "values",
    )

    def __init__(
        self,
        owner: Owner,
        value: object,
        *,
        stubs: list[Disposable] | None,
        promises: list[Located] | None = None,
        lent: bool = False,
        private: bool = False,
    ) -> None:
        self.owner = owner
        self.value = value
        # The stubs (and streams) that the payload owns, promises included; None as long as nobody has looked.
        self.stubs = stubs
        # Most payloads have neither of the next two, so that there are lists only once there is something in
        # them. Those of the stubs whose value has to take their place before the application sees the whole:
        self._promises = promises
        # References to targets in the value, kept from being disposed of while the payload lives.
        self._holds: list[Reference] | None = None
        self.lent = lent
        # Whether the value is the session's to change: nobody else has it.
        self.private = private
        # Of one that is lent: whether there is somebody else who disposes of the targets in it.
        self.is_taken = False
        # Whether another payload has part of the value as well, so that it has to stay as it is.
        self.shared = False
        self.is_handed_over = False
        # About how many values the payload holds, with none that it shares, and what counts them.
        self.values = 0
        self.charge: Charge | None = None
        # The delivery under way, and why it failed if it has.
        self.delivery: _Delivery | None = None
        self.failure: Exception | None = None

    @property
    def promises(self) -> list[Located]:
        """Those of the stubs whose value has to take their place before the application sees the whole."""
        if self._promises is None:
            self._promises = []
        return self._promises

    @promises.setter
    def promises(self, promises: list[Located]) -> None:
        self._promises = promises

    def hold(self, reference: Reference) -> None:
        """Take over a hold on a target in the value, to be given back when the payload is disposed of."""
        if self._holds is None:
            self._holds = []
        self._holds.append(reference)

    @staticmethod
    def given(owner: Owner, value: object) -> Payload:
        """Return a payload of a result of the application."""
        if is_leaf(value):
            return Payload(owner, value, stubs=[], private=True)
        return Payload(owner, value, stubs=None)

    @staticmethod
    def lend(owner: Owner, arguments: tuple[object, ...]) -> Payload:
        """Return a payload of arguments of the application."""
        return Payload(owner, arguments, stubs=None, lent=True)

    @staticmethod
    def copy_of(owner: Owner, value: object) -> Payload:
        """Return a payload with a copy of ``value``, stubs and all, that the session may change.

        Raises:
            EncodeError: the application made a value that holds itself.
            DisposedError: the application has disposed of a stub in the value.
            RpcError: there is no room for a copy.
        """
        payload = Payload(owner, None, stubs=[], private=True)
        payload._fill(value)
        return payload

    @property
    def is_fixed(self) -> bool:
        """Whether the value is plain and nobody changes it, so that parts of it need not be copied."""
        return (
            self.stubs is not None
            and not self.stubs
            and not self._promises
            and not self.lent
            and not self.is_handed_over
            and (self.private or self.shared)
            and self.delivery is None
        )

    def part(self, value: object) -> Payload:
        """Return a payload of a part of this one's value, which is fixed; it is not copied.

        What it takes is counted for as long as one of the two is there.
        """
        self.shared = True
        payload = Payload(self.owner, value, stubs=[])
        payload.shared = True
        payload.charge = self.charge
        return payload

    def account_for(self, values: int, size: int = 0) -> None:
        """Count what the payload takes: so many values, and bytes of text.

        Raises:
            LimitExceededError: there is no room for it.
        """
        self.values = values
        self.charge = self.owner.account.charge(values * VALUE_BYTES + size)

    def own(self) -> None:
        """Make sure that the value is the session's to change and to keep.

        Raises:
            EncodeError, DisposedError: as :meth:`copy_of`.
        """
        if self.private and not self.shared:
            return
        original, stubs = self.value, self.stubs
        self._promises = None
        self._fill(original)
        if stubs:
            for stub in stubs:
                _let_go(stub)
        elif stubs is None and not self.lent:
            _dispose_within(original, self.owner)
        self.lent = False
        self.shared = False
        self.private = True

    @property
    def is_complete(self) -> bool:
        """Whether the value can be delivered as it is: it is the session's, and no promise in it is open."""
        return self.private and not self._promises and self.delivery is None and self.failure is None

    def deliver(self, done: Callable[[Exception | None], None], around: _Delivery | None = None) -> None:
        """Put the value of each promise in its place, then call ``done``, with the error if one failed.

        Several may wait for the delivery of one payload; it takes place once. ``around`` is the delivery that
        waits for this one, if one does.
        """
        if self.failure is None:
            try:
                self.own()
            except RpcError as exc:
                self.failure = exc
        if self.failure is None and self._promises:
            if around is not None and around.chain + 1 >= MAX_CHAIN:
                self.failure = RpcError("promises of promises are nested too deeply")
            else:
                _Delivery(self, around).begin()
        if self.delivery is not None:
            self.delivery.waiting.append(done)
        else:
            done(self.failure)

    def hand_over(self) -> object:
        """Return the value for the application, to which the stubs in it belong from here on."""
        self.own()
        self.stubs = []
        self.is_handed_over = True
        return self.value

    def keep_from(self, result: Payload) -> None:
        """Leave to ``result`` those of the stubs here that it has as well, as the result of a call may."""
        if self.stubs and not result.private:
            given = _disposables_within(result.value)
            self.stubs = [stub for stub in self.stubs if id(stub) not in given]

    def dispose(self) -> None:
        """Dispose of the stubs that the payload owns. Again is no error."""
        if self.stubs is not None:
            for stub in self.stubs:
                _let_go(stub)
        elif not self.lent:
            _dispose_within(self.value, self.owner)
        elif not self.is_taken:
            dispose_of_targets(self.value, self.owner)
        if self.stubs is None or self.stubs:
            self.stubs = []
        self._promises = None
        self.charge = None
        holds, self._holds = self._holds, None
        for reference in holds or ():
            reference.release()

    def _fill(self, value: object) -> None:
        before, self.stubs = self.stubs, []
        self.values = 1
        try:
            self.value = self._copy(value, self, "value", 0)
            self.charge = self.owner.account.charge(self.values * VALUE_BYTES)
        except Exception as exc:
            if self.lent:
                dispose_of_targets(value, self.owner)  # those that have not been copied
                self.is_taken = True
            for stub in self.stubs:
                stub.dispose()
            self.value, self.stubs, self._promises = value, before, None
            if isinstance(exc, LimitExceededError):
                raise too_much(exc) from None
            if isinstance(exc, RecursionError):
                raise too_deep() from None
            raise

    def _count(self, values: int) -> None:
        self.values += values
        self.owner.account.copy(values)

    def _copy(self, value: object, container: Container, key: object, depth: int) -> object:  # noqa: C901, PLR0911 -- on the path of each value
        """Return a copy of ``value`` for ``container[key]``, noting the stubs that it holds."""
        if is_leaf(value):
            return value
        if isinstance(value, dict):
            if depth >= MAX_DEPTH:
                raise too_deep()
            self._count(1 + len(value))
            copied: dict[str, object] = {}
            for name, item in value.items():
                copied[name] = self._copy(item, copied, name, depth + 1)
            return copied
        if isinstance(value, list | tuple):
            if depth >= MAX_DEPTH:
                raise too_deep()
            self._count(1 + len(value))
            items: list[object] = [None] * len(value)
            for index, item in enumerate(value):
                items[index] = self._copy(item, items, index, depth + 1)
            return items
        if isinstance(value, Stub):
            return self._adopt(_duplicate(value), container, key)
        if isinstance(value, RpcTarget) or is_function(value):
            target = passed(value) if self.lent else value
            return self._adopt(Stub(self.owner.near(target).retain()), container, key)
        if isinstance(value, bytearray | array):
            self._count(memoryview(value).nbytes // VALUE_BYTES)
            return value[:]  # its maker may change it
        if isinstance(value, Shared):
            value.share()
            self.note(value)
            self._count(STUB_VALUES)
        return value

    def note(self, stub: Disposable) -> None:
        """Note that the payload owns ``stub``."""
        if self.stubs is None:
            self.stubs = []
        self.stubs.append(stub)

    def _adopt(self, stub: Stub, container: Container, key: object) -> Stub:
        self.note(stub)
        self._count(STUB_VALUES)
        if isinstance(stub, Promise):
            self.promises.append((container, key, stub))
        return stub


class _Delivery:
    """Waits for the promises in one payload. Lives in the observers that it leaves with them."""

    __slots__ = ("chain", "missing", "payload", "waiting")

    def __init__(self, payload: Payload, around: _Delivery | None) -> None:
        self.payload = payload
        # How many deliveries wait for this one, each for the next.
        self.chain: int = 0 if around is None else around.chain + 1
        # How many promises have no value yet, and who is to be told when there are none.
        self.missing = len(payload.promises)
        self.waiting: list[Callable[[Exception | None], None]] = []

    def begin(self) -> None:
        self.payload.delivery = self
        promises, self.payload.promises = self.payload.promises, []
        for container, key, promise in promises:
            settle(promise, self._observer(container, key))

    def _observer(self, container: Container, key: object) -> Observer:
        def observe(outcome: Payload | Exception) -> None:
            if isinstance(outcome, Exception):
                self._end(outcome)
                return
            # The promise may be used again, here or by the peer, so its value is copied for each use.
            try:
                if self.chain:
                    self.payload.owner.account.copy(PROMISE_WEIGHT)
                copied = Payload.copy_of(self.payload.owner, outcome.value)
            except LimitExceededError as exc:
                self._end(too_much(exc))
                return
            except RpcError as exc:
                self._end(exc)
                return

            def placed(error: Exception | None) -> None:
                if error is not None:
                    self._end(error)
                    return
                _put(container, key, copied.value)
                self._take_over(copied)
                if self.payload.stubs is not None and copied.stubs:
                    self.payload.stubs.extend(copied.stubs)
                self.missing -= 1
                if self.missing == 0:
                    self._end(None)

            copied.deliver(placed, self)

        return observe

    def _take_over(self, copied: Payload) -> None:
        """Have what is in its place now counted as the payload's."""
        self.payload.values += copied.values
        if copied.charge is not None:
            if self.payload.charge is None:
                self.payload.charge = copied.charge
            else:
                size, copied.charge.size = copied.charge.size, 0
                self.payload.charge.size += size

    def _end(self, error: Exception | None) -> None:
        if self.payload.delivery is not self:
            return  # it has failed before
        self.payload.delivery = None
        self.payload.failure = error
        for done in self.waiting:
            done(error)


def settle(promise: Promise, observer: Observer) -> None:
    """Have ``observer`` called with what ``promise`` turns out to be."""
    reference, path = reference_of(promise), path_of(promise)
    if not path:
        reference.when_settled(observer)
        return
    inner = reference.get(path)

    def observe(outcome: Payload | Exception) -> None:
        observer(outcome)
        inner.release()

    inner.when_settled(observe)


def _put(container: Container, key: object, value: object) -> None:
    """Put ``value`` at a place within a payload."""
    if isinstance(container, Payload):
        container.value = value
    else:
        container[key] = value  # type: ignore[call-overload, index]  # a list has int keys


def _duplicate(stub: Stub) -> Stub:
    """Return another stub of the same kind for the same thing."""
    reference, path = reference_of(stub), path_of(stub)
    held = reference.get(path) if path else reference.retain()
    return Promise(held) if isinstance(stub, Promise) else Stub(held)


def _let_go(stub: Disposable) -> None:
    """Dispose of ``stub``; later, if it stands for a value: in that may be a stub of another, and so on."""
    reference = take_reference(stub) if isinstance(stub, Stub) else None
    if reference is None:
        stub.dispose()
    elif reference.is_settled:
        reference.owner.abandon(reference)
    else:
        reference.release()


def _leaves(value: object) -> Iterator[object]:
    """Yield, once each and in order, what is in ``value``, which may hold itself, that is no container."""
    seen: set[int] = set()
    left = [] if is_leaf(value) else [value]
    while left:
        item = left.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        # Numbers and texts, of which there may be millions, are left out as fast as can be.
        if isinstance(item, dict):
            left.extend([each for each in reversed(item.values()) if not is_leaf(each)])
        elif isinstance(item, list | tuple):
            left.extend([each for each in reversed(item) if not is_leaf(each)])
        else:
            yield item


def _disposables_within(value: object) -> set[int]:
    """Return the identities of what can be disposed of in ``value``."""
    return {id(item) for item in _leaves(value) if isinstance(item, Disposable)}


def _dispose_within(value: object, owner: Owner) -> None:
    """Dispose of what the application gave away in ``value``."""
    for item in _leaves(value):
        if isinstance(item, Disposable):
            item.dispose()
        elif isinstance(item, RpcTarget):
            # Disposes of the target unless something else, such as an export, still refers to it.
            owner.near(item).retain().release()


def dispose_of_targets(value: object, owner: Owner) -> None:
    """Dispose of the targets in arguments that reach nobody, but for those that are kept (:func:`passed`)."""
    for item in _leaves(value):
        if isinstance(item, RpcTarget) and getattr(item, "dup", None) is None:
            owner.near(item).retain().release()


def when_room(stub: Stub, callback: Callable[[], None]) -> bool:
    """Return whether there is room to send ``stub`` something; else ``callback`` is called when there may be.

    Raises:
        DisposedError: the stub has been disposed of.
    """
    return reference_of(stub).owner.when_room(callback)


def notify(stub: Stub, arguments: tuple[object, ...], settled: Callable[[Exception | None], None]) -> None:
    """Call ``stub`` for how it goes, and have ``settled`` called with the error, or None, when it has.

    For calls whose success is all that matters: one message each way, no task waits, and what the call
    yields is dropped. ``settled`` may be called before this returns.

    Raises:
        EncodeError, DisposedError: as a call does.
    """
    reference = reference_of(stub)
    reference.owner.stream(reference, path_of(stub), arguments, settled, measure=False)

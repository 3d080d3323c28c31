"""What an application holds in place of a remote object or of a result that is not there yet."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from rpcshare.rpc.errors import DisposedError
from rpcshare.rpc.reference import recording

if TYPE_CHECKING:
    from rpcshare.rpc.reference import Owner, Path, Reference

__all__ = ["Disposable", "Promise", "Shared", "Stub", "path_of", "redirect", "reference_of", "take_reference"]


class Disposable:
    """What refers to something on the other side and can be let go of: a stub, or a stream."""

    __slots__ = ()

    def dispose(self) -> None:
        """Let go of it. Again is no error."""


class Shared(Disposable):
    """What cannot be duplicated, so that several may own one; the last to dispose of it lets it go."""

    __slots__ = ("_owners",)

    def __init__(self) -> None:
        self._owners = 1

    def share(self) -> None:
        """Note that it has one more owner."""
        self._owners += 1

    def dispose(self) -> None:
        """Give up one's part in it."""
        if self._owners:
            self._owners -= 1
            if self._owners == 0:
                self.let_go()

    def let_go(self) -> None:
        """Let go of it: nobody owns it any longer."""


class Stub(Disposable):
    """Stands for an object or a function elsewhere.

    ``stub.name`` is a :class:`Promise` of that property and ``stub.name(…)`` calls it: nothing is awaited
    in between, and a promise may be used as an argument or as the target of a further call before it
    has settled (promise pipelining). ``stub["name"]`` is the same for names that Python or this
    class has taken. Names with a leading underscore are only reached that way.

    A stub keeps the remote object alive. Release it with ``with``, ``async with`` or :meth:`dispose`; the
    garbage collector does it as a last resort. Every stub of a session breaks when the session ends.
    """

    __slots__ = ("__weakref__", "_owner", "_path", "_reference")

    def __init__(self, reference: Reference, path: Path = ()) -> None:
        self._reference: Reference | None = reference
        self._path = path
        # Of a stub that has been disposed of: whose it was.
        self._owner: Owner | None = None

    def __call__(self, *arguments: object) -> Promise:
        """Call what this stands for, now, and return a promise of the result.

        Stubs among the arguments stay the caller's. A target or a function among them is exported.

        Raises:
            EncodeError: an argument has no form on the wire; nothing was sent.
            DisposedError: this stub has been disposed of.
        """
        reference = self._reference
        if reference is None:
            self._refuse(arguments)
            raise DisposedError
        owner = recording.get() or reference.owner
        return Promise(owner.invoke(reference, self._path, arguments))

    def __getattr__(self, name: str) -> Promise:
        if name.startswith("_"):
            raise AttributeError(f"{name!r} is private; a remote property is reached as stub[{name!r}]")
        return self[name]

    def __getitem__(self, name: str | int) -> Promise:
        return Promise(reference_of(self).retain(), (*self._path, name))

    def map(self, function: Callable[[Promise], object]) -> Promise:
        """Return a promise of ``[function(element), …]`` for the list that this stands for.

        The function runs once, now, with a placeholder. What it calls and reads is recorded, and applied by
        the peer to each element, without a round trip; so it must not await, and must not depend on values.
        What is no list is passed to it whole; null and undefined stay what they are.

        Raises:
            TypeError: the function is asynchronous.
            EncodeError: it made something that a recording cannot hold.
        """
        from rpcshare.rpc.recording import record_map  # noqa: PLC0415 -- it is made of what is made of this

        return record_map(self, function)

    def dup(self) -> Stub:
        """Return another stub for the same thing, to be disposed of on its own."""
        reference = reference_of(self)
        return Stub(reference.get(self._path) if self._path else reference.retain())

    def dispose(self) -> None:
        """Release what this stands for. Again is no error; any other use afterwards is."""
        if self._reference is not None:
            reference, self._reference = self._reference, None
            self._owner = reference.owner
            reference.release()

    def on_broken(self, callback: Callable[[Exception], None]) -> None:
        """Have ``callback`` called with the reason if this becomes unusable; at once if it is."""
        reference_of(self).on_broken(callback)

    def _refuse(self, arguments: tuple[object, ...]) -> None:
        """Let go of the arguments of a call that cannot be made: this has been disposed of."""
        from rpcshare.rpc.payload import dispose_of_targets  # noqa: PLC0415 -- it is made of what is made of this

        if self._owner is not None:
            dispose_of_targets(arguments, self._owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.dispose()

    def __del__(self) -> None:
        # The collector may run in the middle of anything, so the release waits for its session.
        reference = getattr(self, "_reference", None)
        if reference is not None:
            self._reference = None
            reference.owner.abandon(reference)

    def __repr__(self) -> str:
        state = " (disposed)" if self._reference is None else ""
        path = "".join(f"[{name!r}]" for name in self._path)
        return f"<{type(self).__name__}{path}{state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a stub belongs to its session and cannot be copied or pickled; see dup()")

    def __iter__(self) -> NoReturn:
        # Without this, __getitem__ would make every stub an endless sequence.
        raise TypeError(f"{type(self).__name__!r} object is not iterable")


class Promise(Stub):
    """A :class:`Stub` for what a call or a property will yield. ``await`` it for the value.

    Only awaiting asks the peer to send the value. Awaiting again gives the same object. The value is
    the awaiter's: stubs in it are to be disposed of on their own.
    """

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the value.

        Raises:
            RpcError: what the peer raised, or why the value will never come.
        """
        return _wait_for()(self).__await__()


@functools.cache
def _wait_for() -> Callable[[Promise], Coroutine[Any, Any, object]]:
    # Only here does the core meet an event loop, so only here is one imported, once.
    from rpcshare.rpc.waiting import wait_for  # noqa: PLC0415

    return wait_for


def reference_of(stub: Stub) -> Reference:
    """Return what stands behind ``stub``, with no new hold on it.

    Raises:
        DisposedError: the stub has been disposed of.
    """
    reference = stub._reference  # noqa: SLF001 -- kept off the public names, which are the peer's
    if reference is None:
        raise DisposedError
    return reference


def take_reference(stub: Stub) -> Reference | None:
    """Dispose of ``stub``, and return what stood behind it with the hold that it had, if it had one still."""
    reference, stub._reference = stub._reference, None  # noqa: SLF001 -- as above
    if reference is not None:
        stub._owner = reference.owner  # noqa: SLF001 -- as above
    return reference


def redirect(stub: Stub, reference: Reference) -> Reference:
    """Have ``stub`` keep ``reference`` in place of what it refers to; return that, with the hold on it.

    Raises:
        DisposedError: the stub has been disposed of.
    """
    before = reference_of(stub)
    stub._reference = reference  # noqa: SLF001 -- as above
    return before


def path_of(stub: Stub) -> Path:
    """Return the path from the stub's reference to what the stub stands for."""
    return stub._path  # noqa: SLF001 -- as above

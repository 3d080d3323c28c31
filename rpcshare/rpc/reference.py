"""What stands behind every stub: a reference to something that can be called.

The names are those of the E language, where this design comes from. A reference is *near* (the target is
here), *far* (the peer has it), *pending* (a call under way here will yield it) or *settled* (the value is
here, or an error is in its place). Whoever holds one need not know which: a call goes where it must.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, Self

from rpcshare.rpc.mypyc_compat import mypyc_attr

if TYPE_CHECKING:
    from rpcshare.rpc.local_references import Call
    from rpcshare.rpc.memory_budget import Account
    from rpcshare.rpc.payload import Payload

__all__ = ["Budget", "Instructions", "Observer", "Owner", "Path", "Reference", "Releasable", "recording"]

Path = tuple[str | int, ...]
"""Names of properties, outermost first."""

Instructions = list[object]
"""A mapper function: expressions to be evaluated one after another (PROTOCOL.md, "remap")."""

Observer = Callable[["Payload | Exception"], None]
"""Is given the value, which stays the reference's, or the error in its place."""


recording: ContextVar[Owner | None] = ContextVar("rpcshare_recording", default=None)
"""Who takes note of the calls in the mapper function that is running, if one is."""


class Budget(Protocol):
    """How much the application of a mapper function may still take."""

    def enter(self) -> None:
        """Begin a map within those that have begun. Raises LimitExceededError: they are too many."""
        ...

    def leave(self) -> None:
        """End a map, which has begun or was one too many."""
        ...

    def spend(self, steps: int) -> None:
        """Take so many steps.

        Raises:
            LimitExceededError: they were too many.
        """
        ...


class Releasable(Protocol):
    """What the garbage collector hands in, to be let go of at a better moment."""

    def release(self) -> None:
        """Let go of it."""
        ...


@mypyc_attr(allow_interpreted_subclasses=True)
class Owner:
    """Whose references these are: it has the calls carried out that they turn into."""

    def __init__(self, account: Account) -> None:
        """Have ``account`` count the memory that they take."""
        self.account = account

    @abstractmethod
    def ask(self, call: Call) -> None:
        """Have ``call`` carried out after all those asked for before."""

    @abstractmethod
    def near(self, target: object) -> Reference:
        """Return the one reference to ``target``, a target or a function, with no hold on it yet."""

    @abstractmethod
    def forget(self, target: object) -> None:
        """Note that nothing refers to ``target`` any longer."""

    @abstractmethod
    def invoke(self, reference: Reference, path: Path, arguments: tuple[object, ...]) -> Reference:
        """Call what ``path`` of ``reference`` leads to, with arguments that the application keeps."""

    @abstractmethod
    def stream(
        self,
        reference: Reference,
        path: Path,
        arguments: tuple[object, ...],
        settled: Callable[[Exception | None], None],
        *,
        measure: bool,
    ) -> int | None:
        """Call what ``path`` leads to, and have ``settled`` called with how it went; its result is dropped.

        Returns the size of the message in bytes if that is to be measured; None if no message was sent,
        because what is called is on this side.
        """

    @abstractmethod
    def apply_map(
        self,
        value: object,
        captures: list[Reference],
        instructions: Instructions,
        budget: Budget,
        *,
        fixed: bool,
    ) -> Reference:
        """Apply a mapper function to ``value``, or to each element of it; return a new hold on the result.

        ``fixed`` says that nobody changes ``value``, so that it may be part of the result as it is.
        """

    @abstractmethod
    def when_room(self, callback: Callable[[], None]) -> bool:
        """Return whether it is worth sending more now; else ``callback`` is called when it may be."""

    @abstractmethod
    def abandon(self, reference: Releasable) -> None:
        """Release ``reference`` soon. For the garbage collector: any thread may call it at any time."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Reference:
    """Something that can be called, or will be.

    Each stub, table entry or payload that keeps a reference has one *hold* on it, taken with
    :meth:`retain` and given back with :meth:`release`; the last release lets go of what it refers to.
    Nothing here runs application code, blocks, or calls back before it returns, except that an observer
    of what is settled already is called at once.
    """

    __slots__ = ("owner", "refcount")

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.refcount = 1

    def retain(self) -> Self:
        """Take one more hold, and return the reference."""
        self.refcount += 1
        return self

    def release(self) -> None:
        """Give back one hold."""
        self.refcount -= 1
        if self.refcount == 0:
            self.drop()

    @property
    def resolution(self) -> Reference | None:
        """What has come in place of this, if something has."""
        return None

    @property
    def is_settled(self) -> bool:
        """Whether this is a value, or has turned out to be one."""
        return self.resolution is not None

    @property
    def is_target(self) -> bool:
        """Whether this is a target or a function, of either side, and no promise of one."""
        return False

    @abstractmethod
    def drop(self) -> None:
        """Let go of what this refers to: nobody has a hold any longer."""

    @abstractmethod
    def call(self, path: Path, arguments: Payload) -> Reference:
        """Call what ``path`` leads to; return a new hold on what the call will yield.

        ``arguments`` (a list) are the callee's from here on, also if the call fails.
        """

    @abstractmethod
    def get(self, path: Path) -> Reference:
        """Return a new hold on what ``path`` leads to."""

    @abstractmethod
    def map(
        self, path: Path, captures: list[Reference], instructions: Instructions, budget: Budget
    ) -> Reference:
        """Apply a mapper function to what ``path`` leads to; return a new hold on what comes of it.

        The holds on ``captures``, to which the function refers, are the callee's from here on.
        """

    @abstractmethod
    def when_settled(self, observer: Observer) -> None:
        """Have ``observer`` called once with what this turns out to be, asking the peer if need be."""

    @abstractmethod
    def on_broken(self, callback: Callable[[Exception], None]) -> None:
        """Have ``callback`` called once if this turns out, or comes, to be unusable."""

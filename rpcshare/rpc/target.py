"""What a peer may call: classes that say so, member by member.

A :class:`RpcTarget` crosses the wire as a reference. Of its members the peer reaches those, and only
those, that are marked with :func:`rpc_method` or :func:`rpc_property`, under the names given there; what
Python calls an attribute is never looked up by a name that came from the peer.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from rpcshare.rpc.members import Function, Method, Property

__all__ = ["RpcTarget", "is_function", "passed", "rpc_method", "rpc_property"]

FUNCTION_TYPES = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    functools.partial,
    Function,
)

F = TypeVar("F", bound=Callable[..., object])


def is_function(value: object) -> bool:
    """Whether ``value`` is exported as a function: a class, say, can be called but is not."""
    return isinstance(value, FUNCTION_TYPES)


class RpcTarget:
    """Base of the objects that a peer may call.

    A subclass marks what is to be callable::

        class Greeter(RpcTarget):
            @rpc_method("greet(name, greeting?)")
            def greet(self, name: str, greeting: str = "hello") -> str:
                return f"{greeting}, {name}"

    A method may be ``async``. Calls on one target start in the order in which they arrived.
    """

    rpc_members: ClassVar[dict[str, Method | Property]] = {}
    """What the peer reaches, by its name on the wire."""

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 -- whatever other bases take
        super().__init_subclass__(**kwargs)
        # Looked up on the class itself, so that an override without a mark takes the export away.
        cls.rpc_members = {}
        for attribute in dir(cls):
            member = getattr(inspect.getattr_static(cls, attribute), "rpc_member", None)
            if not isinstance(member, Method | Property):
                continue
            if member.name in cls.rpc_members:
                raise TypeError(f"{cls.__name__} exports two members as {member.name!r}")
            cls.rpc_members[member.name] = member

    def dispose(self) -> None:
        """Called when the last reference that a session had to this target is gone.

        It may come at any time between two calls. What it raises is logged, and goes nowhere.

        A target that is passed as an argument is disposed of when the callee has let go of it. A class that
        has a method ``dup()``, without parameters, is asked for another target to be passed in its place.
        """


def passed(target: object) -> object:
    """Return what is exported for ``target`` where it is an argument: what its ``dup()`` returns, if any.

    The session disposes of what it exports, and an argument may be the caller's to keep.

    Raises:
        TypeError: its ``dup()`` returned no target.
    """
    dup = getattr(target, "dup", None) if isinstance(target, RpcTarget) else None
    if dup is None:
        return target
    duplicate = dup()
    if not isinstance(duplicate, RpcTarget):
        raise TypeError(f"the dup() of a {type(target).__name__} returned a {type(duplicate).__name__}")
    return duplicate


def rpc_method(signature: str, *, text: str | None = None) -> Callable[[F], F]:
    """Export a method of an :class:`RpcTarget` under a signature such as ``"getUser(userID, options?)"``.

    The signature gives the names on the wire; a ``?`` marks what may be left out. Arguments are checked
    against the method's annotations before it runs: ``object`` accepts anything, :class:`Stub` a function or
    a target, and every other annotation what :func:`msgspec.convert` accepts for it.

    Args:
        signature: as above.
        text: the name on the wire of a parameter, annotated with ``object``, that may be megabytes of JSON.
            Such an argument comes as a :class:`~rpcshare.jsontext.JSONText`, without objects made of it; or,
            if it is short or not in the usual form, as a value like any other.

    Raises:
        TypeError: the signature is malformed, does not fit the method, or has no parameter ``text``.
    """

    def mark(function: F) -> F:
        function.rpc_member = Method(function, signature, text)  # type: ignore[attr-defined]  # a mark
        return function

    return mark


def rpc_property(name: str) -> Callable[[F], F]:
    """Export a method without parameters of an :class:`RpcTarget` as the property ``name``.

    Raises:
        TypeError: the method takes parameters, or is ``async``.
    """

    def mark(function: F) -> F:
        function.rpc_member = Property(function, name)  # type: ignore[attr-defined]  # a mark
        return function

    return mark

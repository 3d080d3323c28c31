"""What a peer may call: classes that say so, member by member.

A :class:`RpcTarget` crosses the wire as a reference. Of its members the peer reaches those, and only
those, that are marked with :func:`rpc_method` or :func:`rpc_property`, under the names given there; what
Python calls an attribute is never looked up by a name that came from the peer.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import msgspec

from rpcshare.rpc.errors import INVALID_ARGUMENT_CODE, RpcError
from rpcshare.rpc.stub import Stub
from rpcshare.rpc.values import UNDEFINED

__all__ = ["RpcTarget", "is_function", "rpc_method", "rpc_property"]

FUNCTION_TYPES = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    functools.partial,
)

F = TypeVar("F", bound=Callable[..., object])

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_SIGNATURE = re.compile(r"(?P<name>[A-Za-z]\w*)\((?P<parameters>[^()]*)\)", re.ASCII)
_PARAMETER = re.compile(r"(?P<name>[A-Za-z]\w*)(?P<optional>\??)", re.ASCII)


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
        """


class Method:
    """An exported method: its name, its parameters, and what they accept."""

    def __init__(self, function: Callable[..., object], signature: str) -> None:
        match = _SIGNATURE.fullmatch(signature)
        if match is None:
            raise TypeError(f"not a signature such as 'name(a, b?)': {signature!r}")
        self.name = match["name"]
        self.function = function
        self.parameters, self.required = self._parse_parameters(match["parameters"])
        self._check_against_function()

    def _parse_parameters(self, text: str) -> tuple[list[str], int]:
        names: list[str] = []
        required = 0
        for part in filter(None, (part.strip() for part in text.split(","))):
            match = _PARAMETER.fullmatch(part)
            if match is None:
                raise TypeError(f"{self.name}: not a parameter: {part!r}")
            if not match["optional"]:
                if required < len(names):
                    raise TypeError(f"{self.name}: {part!r} is required, but what is before it is not")
                required += 1
            names.append(match["name"])
        return names, required

    def _check_against_function(self) -> None:
        """Hold the signature on the wire against Python's, so that the two cannot drift apart."""
        own = list(inspect.signature(self.function).parameters.values())[1:]
        required = sum(1 for parameter in own if parameter.default is parameter.empty)
        fits = len(own) == len(self.parameters) and required == self.required
        if not fits or any(parameter.kind not in _POSITIONAL for parameter in own):
            raise TypeError(f"{self.name}: its signature on the wire does not fit the method's own")
        self._defaults = [parameter.default for parameter in own]

    @functools.cached_property
    def _converters(self) -> list[Callable[[object], object]]:
        # Hints are resolved at the first call: at class creation their names may not exist yet.
        hints = typing.get_type_hints(self.function)
        own = list(inspect.signature(self.function).parameters)[1:]
        return [_converter(hints.get(name, object)) for name in own]

    def __call__(self, target: RpcTarget, *arguments: object) -> object:
        """Call the method of ``target`` with arguments that came from the peer.

        Raises:
            RpcError: ``INVALID_ARGUMENT``, naming the argument that does not fit.
        """
        given = list(arguments)
        while given and given[-1] is UNDEFINED:
            given.pop()
        if len(given) > len(self.parameters):
            raise self._invalid(f"takes at most {len(self.parameters)} arguments, not {len(given)}")
        if len(given) < self.required:
            raise self._invalid(f"the argument {self.parameters[len(given)]} is missing")
        for index, converter in enumerate(self._converters[: len(given)]):
            if given[index] is UNDEFINED and index >= self.required:
                given[index] = self._defaults[index]
                continue
            try:
                given[index] = converter(given[index])
            except (msgspec.ValidationError, TypeError) as exc:
                raise self._invalid(f"{self.parameters[index]}: {exc}") from None
            except UnicodeEncodeError:
                # msgspec looks at it as UTF-8, which has no form for it.
                why = f"{self.parameters[index]}: half of a surrogate pair"
                raise self._invalid(why) from None
        return self.function(target, *given)

    def _invalid(self, why: str) -> RpcError:
        return RpcError(f"{self.name}: {why}", code=INVALID_ARGUMENT_CODE)


class Property:
    """An exported property: its name, and the function that reads it."""

    def __init__(self, function: Callable[[Any], object], name: str) -> None:
        self.name = name
        self.function = function
        if inspect.iscoroutinefunction(function) or len(inspect.signature(function).parameters) != 1:
            raise TypeError(f"{name}: a property is read by a method without parameters that is not async")


def _converter(hint: object) -> Callable[[object], object]:
    """Return what turns a value from the wire into one of type ``hint``, or raises."""
    if hint in (object, Any):
        return _accept
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if Stub in kinds:
        return functools.partial(_require_stub, optional=types.NoneType in kinds)
    if hint is str:
        return _convert_str
    if typing.get_origin(hint) is dict and typing.get_args(hint) == (str, Any):
        return _convert_dict
    return functools.partial(_convert, hint=hint)


def _convert(value: object, *, hint: object) -> object:
    # In JavaScript a member that is undefined is as good as none.
    if value is UNDEFINED:
        value = None
    elif type(value) is dict and UNDEFINED in value.values():
        value = {name: item for name, item in value.items() if item is not UNDEFINED}
    return msgspec.convert(value, hint)


def _convert_str(value: object) -> object:
    # What is ASCII holds no half of a surrogate pair either.
    return value if type(value) is str and value.isascii() else _convert(value, hint=str)


def _convert_dict(value: object) -> object:
    if type(value) is dict and UNDEFINED not in value.values():
        return value  # from the wire, whose keys are strings
    return _convert(value, hint=dict[str, Any])


def _accept(value: object) -> object:
    return value


def _require_stub(value: object, *, optional: bool) -> object:
    if isinstance(value, Stub) or (optional and value is None):
        return value
    raise TypeError("expected a function or an RPC target")


def rpc_method(signature: str) -> Callable[[F], F]:
    """Export a method of an :class:`RpcTarget` under a signature such as ``"getUser(userID, options?)"``.

    The signature gives the names on the wire; a ``?`` marks what may be left out. Arguments are checked
    against the method's annotations before it runs: ``object`` accepts anything, :class:`Stub` a function or
    a target, and every other annotation what :func:`msgspec.convert` accepts for it.

    Raises:
        TypeError: the signature is malformed or does not fit the method.
    """

    def mark(function: F) -> F:
        function.rpc_member = Method(function, signature)  # type: ignore[attr-defined]  # a mark
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

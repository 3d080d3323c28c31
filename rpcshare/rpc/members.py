"""What a class exports: its methods and properties, by their names on the wire, and what they accept."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final

import msgspec

from rpcshare.rpc.errors import INVALID_ARGUMENT_CODE, RpcError
from rpcshare.rpc.stub import Stub
from rpcshare.rpc.values import UNDEFINED

__all__ = ["BoundMethod", "Function", "Method", "Property"]

Converter = Callable[[object], object]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_SIGNATURE = re.compile(r"(?P<name>[A-Za-z]\w*)\((?P<parameters>[^()]*)\)", re.ASCII)
_PARAMETER = re.compile(r"(?P<name>[A-Za-z]\w*)(?P<optional>\??)", re.ASCII)


# Names of other modules are looked up each time that compiled code uses them; those of its own are not.
_UNDEFINED: Final = UNDEFINED


class Function:
    """What a peer calls, of the core's own making: compiled code calls it without Python's calls."""

    __slots__ = ()

    @abstractmethod
    def invoke(self, arguments: list[object]) -> object:
        """Call it with arguments that came from the peer, and return what it returns, maybe an awaitable."""

    def __call__(self, *arguments: object) -> object:
        """Do the same."""
        return self.invoke(list(arguments))


class Method:
    """An exported method: its name, its parameters, and what they accept."""

    def __init__(self, function: Callable[..., object], signature: str, text: str | None = None) -> None:
        match = _SIGNATURE.fullmatch(signature)
        if match is None:
            raise TypeError(f"not a signature such as 'name(a, b?)': {signature!r}")
        self.name = match["name"]
        self.function = function
        self.parameters, self.required = self._parse_parameters(match["parameters"])
        self._defaults = self._check_against_function()
        # The place of the argument that the function takes as a JSONText, too; -1: there is none.
        if text is not None and text not in self.parameters:
            raise TypeError(f"{self.name}: has no parameter {text!r}")
        self.text_index = -1 if text is None else self.parameters.index(text)
        # Made at the first call: at class creation the names in the hints may not exist yet.
        self._converters: list[Converter] | None = None

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

    def _check_against_function(self) -> list[object]:
        """Hold the signature on the wire against Python's, so that the two cannot drift apart.

        Return what the function takes for what is left out.
        """
        own = list(inspect.signature(self.function).parameters.values())[1:]
        required = sum(1 for parameter in own if parameter.default is parameter.empty)
        fits = len(own) == len(self.parameters) and required == self.required
        if not fits or any(parameter.kind not in _POSITIONAL for parameter in own):
            raise TypeError(f"{self.name}: its signature on the wire does not fit the method's own")
        return [parameter.default for parameter in own]

    def _make_converters(self) -> list[Converter]:
        hints = typing.get_type_hints(self.function)
        own = list(inspect.signature(self.function).parameters)[1:]
        return [_converter(hints.get(name, object)) for name in own]

    def invoke(self, target: object, arguments: list[object]) -> object:
        """Call the method of ``target``, which has it, with arguments that came from the peer.

        Raises:
            RpcError: ``INVALID_ARGUMENT``, naming the argument that does not fit.
        """
        given = arguments.copy()
        while given and given[-1] is _UNDEFINED:
            given.pop()
        if len(given) > len(self.parameters):
            raise self._invalid(f"takes at most {len(self.parameters)} arguments, not {len(given)}")
        if len(given) < self.required:
            raise self._invalid(f"the argument {self.parameters[len(given)]} is missing")
        converters = self._converters
        if converters is None:
            converters = self._converters = self._make_converters()
        for index in range(len(given)):
            if given[index] is _UNDEFINED and index >= self.required:
                given[index] = self._defaults[index]
                continue
            try:
                given[index] = converters[index](given[index])
            except (msgspec.ValidationError, TypeError) as exc:
                raise self._invalid(f"{self.parameters[index]}: {exc}") from None
            except UnicodeEncodeError:
                # msgspec looks at it as UTF-8, which has no form for it.
                why = f"{self.parameters[index]}: half of a surrogate pair"
                raise self._invalid(why) from None
        if len(given) == 1:
            return self.function(target, given[0])  # without a tuple of them
        return self.function(target, *given)

    def _invalid(self, why: str) -> RpcError:
        return RpcError(f"{self.name}: {why}", code=INVALID_ARGUMENT_CODE)


class BoundMethod(Function):
    """An exported method of one target."""

    __slots__ = ("method", "target")

    def __init__(self, method: Method, target: object) -> None:
        self.method = method
        self.target = target

    def invoke(self, arguments: list[object]) -> object:
        """Call it."""
        return self.method.invoke(self.target, arguments)


class Property:
    """An exported property: its name, and the function that reads it."""

    def __init__(self, function: Callable[[Any], object], name: str) -> None:
        self.name = name
        self.function = function
        if inspect.iscoroutinefunction(function) or len(inspect.signature(function).parameters) != 1:
            raise TypeError(f"{name}: a property is read by a method without parameters that is not async")


def _converter(hint: object) -> Converter:
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
    if type(value) is dict and not _has_undefined(value):
        return value  # from the wire, whose keys are strings
    return _convert(value, hint=dict[str, Any])


def _has_undefined(value: dict[str, object]) -> bool:
    return any(item is _UNDEFINED for item in value.values())  # ``in`` would compare each with it


def _accept(value: object) -> object:
    return value


def _require_stub(value: object, *, optional: bool) -> object:
    if isinstance(value, Stub) or (optional and value is None):
        return value
    raise TypeError("expected a function or an RPC target")

"""The JSON object that a request carries, of which each member is decoded only when it is needed.

Who sends a body has not been asked for a secret yet. So at first it is looked through, not made into objects.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec
from starlette.requests import Request

from rpcshare import jsontext
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.json_values import holds_more_than
from rpcshare.jsontext import JSONText
from rpcshare.long_work import LongWork
from rpcshare.server.content_coding import read_decoded_body

__all__ = ["JsonBody", "json_body", "read_json_body"]

# Arrays and objects in one body. Three bytes of "[],[],…" are an object of 56. A session of 20,000 parts has
# 100,000 of them.
MAX_CONTAINERS = 1_000_000

# Values in one body, strings not looked into: a list of zeros takes eight bytes for each two of its text.
MAX_VALUES = 3_000_000

# The same of a body that has to be decoded in one go: half of a surrogate pair is in it.
MAX_VALUES_AT_ONCE = 500_000

_SHORT = 64 * 1024  # bytes of a body that holds nobody up, and of a member other than data

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class JsonBody:
    """The members of the object, by name."""

    def __init__(self, members: Mapping[str, object], longest: int = _SHORT) -> None:
        """Hold ``members``, each of at most ``longest`` bytes as it is written, but the data of a share."""
        self._members = dict(members)
        self._longest = longest

    def get(self, name: str) -> object:
        """Return a member decoded; None if there is none."""
        value = self._members.get(name)
        if not isinstance(value, msgspec.Raw):
            return value
        if memoryview(value).nbytes > self._longest:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{name}: is longer than {self._longest:,} bytes")
        try:
            return jsontext.decode(bytes(value))
        except jsontext.JSONDecodeError as exc:  # such as a number of more digits than Python reads
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{name}: cannot be read: {exc}") from None

    def take(self, name: str) -> object:
        """Return a member, as JSON text if that is how it is held, to be read in slices; it is gone here."""
        value = self._members.pop(name, None)
        return JSONText(memoryview(value)) if isinstance(value, msgspec.Raw) else value

    def members(self, *names: str) -> dict[str, object]:
        """Return those of the members that there are, decoded."""
        return {name: self.get(name) for name in names if name in self._members}

    def all_but(self, *names: str) -> dict[str, object]:
        """Return all members but these, decoded."""
        return self.members(*(name for name in self._members if name not in names))

    def check_spelling(self, *options: str) -> None:
        """Look for options that are misspelt: ignored, they would leave a share more open than was meant.

        Other members are ignored: later versions of a client may send more than is known here.

        Raises:
            ShareError: INVALID_ARGUMENT: a member is none of ``options``, and nearly spelled like one.
        """
        for name in self._members:
            for option in options:
                if name not in options and _is_nearly(name, option):
                    message = f"{name}: is not known; it is spelled nearly like {option}"
                    raise ShareError(ErrorCode.INVALID_ARGUMENT, message)

    def text(self, name: str) -> str:
        """Return a member that has to be a string."""
        value = self.get(name)
        if not isinstance(value, str):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{name}: expected a string")
        return value

    @property
    def secret(self) -> str | None:
        """The share's secret; None if there is none."""
        return None if self.get("secret") is None else self.text("secret")


async def read_json_body(
    request: Request,
    bound: int,
    *,
    optional: bool = False,
    longest_member: int = _SHORT,
    before_decoding: Callable[[], Awaitable[None]] | None = None,
) -> JsonBody:
    """Return what a request carries, of at most ``bound`` bytes when it is not compressed.

    Args:
        request: whose body it is.
        bound: 0 for any length.
        optional: whether an empty body is as good as an empty object.
        longest_member: bytes of a member other than data, as it is written.
        before_decoding: as of :func:`~rpcshare.server.content_coding.read_decoded_body`.

    Raises:
        ShareError: PAYLOAD_TOO_LARGE; INVALID_ARGUMENT, if it is no JSON object.
        HttpError: UNSUPPORTED_MEDIA_TYPE.
    """
    data = await read_decoded_body(request, bound, before_decoding)
    return JsonBody({}) if not data and optional else await json_body(data, longest_member)


async def json_body(data: bytes, longest_member: int = _SHORT) -> JsonBody:
    """Return what the text of a body stands for, with members of at most so many bytes.

    Raises:
        ShareError: as :func:`read_json_body` does.
    """
    if len(data) <= _SHORT:
        return JsonBody(_members(data), longest_member)
    # However many come at once, they are looked through one by one.
    async with LongWork() as work:
        if await holds_more_than(data, MAX_VALUES, work, MAX_CONTAINERS):
            limits = f"{MAX_CONTAINERS:,} arrays and objects, or {MAX_VALUES:,} values"
            raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, f"the body holds more than {limits}")
        members = _looked_through(data)
        if members is None:
            if await holds_more_than(data, MAX_VALUES_AT_ONCE, work):
                message = f"half of a surrogate pair is in a body of more than {MAX_VALUES_AT_ONCE:,} values"
                raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)
            members = await work.aside(partial(_decoded, data))
        return JsonBody(members, longest_member)


def _members(data: bytes) -> Mapping[str, object]:
    members = _looked_through(data)
    return _decoded(data) if members is None else members


def _looked_through(data: bytes) -> Mapping[str, object] | None:
    """Return the members in JSON; None if msgspec cannot look through it: see jsontext."""
    try:
        return _MEMBERS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _decoded(data: bytes) -> Mapping[str, object]:
    try:
        members = jsontext.decode(data)
    except jsontext.JSONDecodeError as exc:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"the body is not JSON: {exc}") from None
    if not isinstance(members, dict):
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "the body is not a JSON object")
    return members


def _is_nearly(name: str, option: str) -> bool:
    """Whether a name is an option in another case, with other signs between its words, or with a slip in it.

    A slip is a letter too many, too few or wrong, or two that have changed places.
    """
    if abs(len(name) - len(option)) > 4:
        return False
    one, other = ("".join(filter(str.isalnum, each)).lower() for each in (name, option))
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    one, other = one[start:], other[start:]
    return (
        one[1:] == other[1:]
        or one[1:] == other
        or one == other[1:]
        or (one[1::-1] == other[:2] and one[2:] == other[2:])
    )

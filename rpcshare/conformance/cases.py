"""The cases, as they are read from ``vectors/``."""

from __future__ import annotations

from importlib import resources

import msgspec

from rpcshare import jsontext

__all__ = [
    "Abort",
    "Case",
    "Closed",
    "Either",
    "Expect",
    "Interleaved",
    "Send",
    "SendText",
    "Step",
    "load_cases",
]


class Send(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Send a message."""

    send: list[object]


class SendText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Send a text that may be no message."""

    send_text: str


class Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The next message of the peer is like this."""

    expect: list[object]


class Interleaved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The next messages of the peer are these, each list of them in its order, but mixed in any way."""

    interleaved: list[list[list[object]]]


class Either(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of these courses is taken, as the first thing that the peer says tells."""

    either: list[list[Step]]


class Abort(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The peer sends ``abort`` and closes the connection."""

    abort: bool


class Closed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The peer closes the connection and says nothing before."""

    closed: bool


Step = Send | SendText | Expect | Interleaved | Either | Abort | Closed

_KINDS: dict[str, type[Step]] = {
    "send": Send,
    "sendText": SendText,
    "expect": Expect,
    "interleaved": Interleaved,
    "abort": Abort,
    "closed": Closed,
}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to find out about a peer, in a session of its own."""

    id: str
    title: str
    checks: list[str]
    """The rules of PROTOCOL.md that it holds the peer to."""

    over: list[str]
    """What it can be run over: ``websocket``, ``http``."""

    steps: list[Step]

    def is_about(self, text: str) -> bool:
        """Whether ``text`` is part of its id, or one of the rules that it checks."""
        return text in self.id or text in self.checks


def load_cases() -> list[Case]:
    """Return the cases that come with this package, in the order of their files."""
    vectors = resources.files("rpcshare.conformance") / "vectors"
    files = {file.name: file for file in vectors.iterdir() if file.name.endswith(".json")}
    return [
        _case(data)
        for name in sorted(files)
        for data in jsontext.decode(files[name].read_text("utf-8"))["cases"]
    ]


def _case(data: dict[str, object]) -> Case:
    known = {"over": ["websocket"], **data}
    return Case(
        id=msgspec.convert(known.pop("id"), str),
        title=msgspec.convert(known.pop("title"), str),
        checks=msgspec.convert(known.pop("checks"), list[str]),
        over=msgspec.convert(known.pop("over"), list[str]),
        steps=[_step(step) for step in msgspec.convert(known.pop("steps"), list[dict[str, object]])],
    )


def _step(data: dict[str, object]) -> Step:
    """Return the step that ``data``, an object with one member, is.

    Raises:
        ValueError: it is none.
    """
    ((kind, value),) = data.items()
    if kind == "either":
        courses = msgspec.convert(value, list[list[dict[str, object]]])
        return Either([[_step(step) for step in course] for course in courses])
    return msgspec.convert(data, _KINDS[kind])

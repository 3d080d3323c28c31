"""What a user has taken back for good: messages that the client removed, and does not say so.

opencode names in ``session.revert`` from where on messages, or parts of one, are taken back. Either they are
restored, or the next prompt removes them; in both cases all that is sent is a session without ``revert``. The
prompt tells which it was: opencode makes it in the same moment in which it removes them.
"""

from collections.abc import Mapping, Sequence

import msgspec

from rpcshare import jsontext
from rpcshare.shares.batch_validation import Value

__all__ = ["Removed", "Reverts"]

_MOMENT = 2000.0  # milliseconds between the end of a revert and the prompt that ended it


class Cleared(msgspec.Struct, frozen=True):
    """A revert that has ended, of which it is not known how."""

    message_id: str
    part_id: str
    at: float
    """When, in milliseconds since the epoch; 0: the session does not say."""


class Removed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What does not follow from the items of a share."""

    messages: Mapping[str, str] = {}
    """From which part on each message is removed; empty for all of it."""
    cleared: Cleared | None = None

    def __bool__(self) -> bool:
        return bool(self.messages) or self.cleared is not None


class _Time(msgspec.Struct):
    created: float = 0.0
    updated: float = 0.0


class _Message(msgspec.Struct):
    role: str = ""
    time: _Time = msgspec.field(default_factory=_Time)


class _Revert(msgspec.Struct):
    messageID: str = ""  # noqa: N815 -- opencode's name
    partID: str | None = None  # noqa: N815 -- the same


class _Session(msgspec.Struct):
    revert: _Revert | None = None
    time: _Time = msgspec.field(default_factory=_Time)


_message = msgspec.json.Decoder(_Message).decode
_session = msgspec.json.Decoder(_Session).decode


class Reverts:
    """Follows the reverts of one session, sync by sync."""

    def __init__(self) -> None:
        self.messages: dict[str, str] = {}
        """See :class:`Removed`."""
        self.changes = 0
        """How often what is taken back, or removed, has changed."""
        self._revert: _Revert | None = None
        self._cleared: Cleared | None = None

    @property
    def removed(self) -> Removed:
        """What a snapshot of the share has to hold beside its items."""
        return Removed(dict(self.messages), self._cleared)

    def restore(self, removed: Removed, session: bytes | None) -> None:
        """Begin with what :attr:`removed` was, and the session that there was then."""
        self.messages, self._cleared = dict(removed.messages), removed.cleared
        self._revert = None if session is None else _session_of(session).revert

    def is_of_interest(self, session: bytes | None) -> bool:
        """Whether a sync that brings this session, or None, has to be told to :meth:`apply`. Cheap."""
        return (
            self._revert is not None
            or self._cleared is not None
            or bool(self.messages)
            or (session is not None and b'"revert"' in session)
        )

    def apply(
        self,
        session: bytes | None,
        held: Mapping[bytes, Value],
        came: Sequence[bytes],
        new: int,
    ) -> None:
        """Take in a sync.

        Args:
            session: the session that came with it.
            held: all messages that there are now, in the order in which they came first.
            came: the keys of the messages in the sync.
            new: how many messages there were not before: the last of those held.
        """
        for key in came if self.messages else ():
            if self.messages.pop(jsontext.decode(key), None) is not None:  # it is there again
                self.changes += 1
        if session is not None:
            read = _session_of(session)
            before, self._revert = self._revert, read.revert
            self.changes += before != read.revert
            if read.revert is not None:
                self._cleared = None
            elif before is not None:
                self._cleared = Cleared(before.messageID, before.partID or "", read.time.updated)
        if self._cleared is not None and new:
            self._prompted(self._cleared, held, new)

    def _prompted(self, cleared: Cleared, held: Mapping[bytes, Value], new: int) -> None:
        messages = [(key, _message_of(body)) for key, body in held.values()]
        prompts = [message.time.created for _, message in messages[-new:] if message.role == "user"]
        if not prompts:
            return
        self._cleared = None
        if cleared.at and min(prompts) > cleared.at + _MOMENT:
            return  # what was taken back had been restored
        latest = 0.0
        older: list[tuple[float, str]] = []
        for key, message in messages[:-new]:
            latest = message.time.created or latest
            older.append((latest, jsontext.decode(key)))
        older.sort(key=lambda each: each[0])
        ids = [message_id for _, message_id in older]
        if cleared.message_id in ids:
            self.changes += 1
            first = ids.index(cleared.message_id)
            self.messages |= dict.fromkeys(ids[first:], "")
            self.messages[cleared.message_id] = cleared.part_id


def _session_of(body: bytes) -> _Session:
    try:
        return _session(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Session()


def _message_of(body: bytes) -> _Message:
    try:
        return _message(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Message()

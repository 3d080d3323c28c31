"""Plays cases against a server, step by step, and says where it went another way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import anyio
import msgspec

from rpcshare import jsontext
from rpcshare.conformance.cases import (
    Abort,
    Case,
    Closed,
    Either,
    Expect,
    Interleaved,
    Send,
    SendText,
    Step,
)
from rpcshare.conformance.patterns import Bindings, filled_in, matches
from rpcshare.conformance.peers import Ended, Peer, Unreadable, open_peer

__all__ = ["Failure", "Outcome", "run_cases"]

# How much of a message is shown.
MAX_SHOWN = 2000


class Failure(Exception):  # noqa: N818 -- of the server, not of the program
    """The server did something else than it had to."""

    def __init__(self, expected: object, got: object) -> None:
        self.expected = _shown(expected)
        self.got = _shown(got)
        super().__init__(f"expected {self.expected}, got {self.got}")

    def lines(self) -> list[str]:
        """Return what is said about it."""
        return [f"expected {self.expected}", f"got      {self.got}"]


class Outcome(msgspec.Struct, frozen=True):
    """How a case went."""

    case: Case
    failure: Failure | None

    @property
    def passed(self) -> bool:
        """Whether the server did what it had to."""
        return self.failure is None

    def report(self) -> dict[str, object]:
        """Return it as an object for JSON."""
        report: dict[str, object] = {
            "id": self.case.id,
            "title": self.case.title,
            "checks": self.case.checks,
            "passed": self.passed,
        }
        if self.failure is not None:
            report |= {"expected": self.failure.expected, "got": self.failure.got}
        return report


async def run_cases(
    url: str, cases: Iterable[Case], *, time_limit: float = 5.0, messagepack: bool = False
) -> AsyncIterator[Outcome]:
    """Run those of ``cases`` that can be run over the kind of ``url``, one after another.

    Args:
        url: ``ws:`` or ``wss:`` for sessions over WebSocket, ``http:`` or ``https:`` for batches.
        cases: see :func:`~rpcshare.conformance.cases.load_cases`.
        time_limit: how many seconds a case may take.
        messagepack: speak MessagePack over the WebSocket. A case that sends text is left out then.

    Raises:
        OSError: the server cannot be reached, or has gone.
    """
    kind = "http" if url.startswith(("http:", "https:")) else "websocket"
    for case in cases:
        if kind not in case.over or (messagepack and any(isinstance(step, SendText) for step in case.steps)):
            continue
        async with open_peer(url, messagepack=messagepack) as peer:
            failure: Failure | None = None
            try:
                await _Play(peer, anyio.current_time() + time_limit).case(case)
            except Failure as exc:
                failure = exc
        yield Outcome(case, failure)


class _Play:
    """One case on its way."""

    def __init__(self, peer: Peer, deadline: float) -> None:
        self._peer = peer
        self._deadline = deadline
        self._bindings: Bindings = {}
        # A message that was looked at and is still to be dealt with.
        self._seen: list[object] = []

    async def case(self, case: Case) -> None:
        """Take the steps, and see that nothing comes after them.

        Raises:
            Failure: the server did something else.
        """
        for step in case.steps:
            await self._take(step)
        if not case.steps or not isinstance(case.steps[-1], Abort | Closed):
            await self._expect(await self._peer.ask())

    async def _take(self, step: Step) -> None:
        match step:
            case Send(message):
                await self._peer.send(filled_in(message, self._bindings))  # type: ignore[arg-type]  # a list
            case SendText(text):
                await self._peer.send_text(text)
            case Expect(pattern):
                await self._expect(pattern)
            case Interleaved(sequences):
                await self._expect_interleaved(sequences)
            case Either(courses):
                await self._choose(courses)
            case Abort():
                await self._expect(["abort", {"$any": True}])
                await self._expect(Ended("the connection is closed"))
            case Closed():
                await self._expect(Ended("the connection is closed"))

    async def _expect(self, pattern: object) -> None:
        message = await self._next(pattern)
        if not self._fits(pattern, message):
            raise Failure(pattern, message)

    async def _expect_interleaved(self, sequences: list[list[list[object]]]) -> None:
        rest = [list(sequence) for sequence in sequences]
        while any(rest):
            heads = [sequence[0] for sequence in rest if sequence]
            message = await self._next(heads)
            for sequence in rest:
                if sequence and self._fits(sequence[0], message):
                    del sequence[0]
                    break
            else:
                raise Failure({"one of": heads}, message)

    async def _choose(self, courses: list[list[Step]]) -> None:
        firsts = [course[0].expect for course in courses if isinstance(course[0], Expect)]
        message = await self._next(firsts)
        self._seen.append(message)
        for course in courses:
            if isinstance(course[0], Expect) and self._fits(course[0].expect, message):
                for step in course:
                    await self._take(step)
                return
        raise Failure({"one of": firsts}, message)

    async def _next(self, expected: object) -> object:
        if self._seen:
            return self._seen.pop()
        with anyio.CancelScope(deadline=self._deadline):
            return await self._peer.receive()
        raise Failure(expected, Ended("nothing, in all the time that a case may take"))

    def _fits(self, pattern: object, message: object) -> bool:
        """Whether a message is as ``pattern`` says; what the peer chose in it counts only if it is."""
        if isinstance(pattern, Ended) or isinstance(message, Ended | Unreadable):
            return isinstance(pattern, Ended) and isinstance(message, Ended)
        bindings = dict(self._bindings)
        if not matches(pattern, message, bindings):
            return False
        self._bindings = bindings
        return True


def _shown(message: object) -> str:
    if isinstance(message, Ended | Unreadable):
        return message.how
    text = jsontext.encode(message).decode()
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({len(text):,} characters)"

"""Holds session after session with a peer that spoils what it says, and notes whatever should not happen."""

import asyncio
import gc
import json
import logging
import time
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import msgpack

from fuzz.dialogues import DIALOGUES, Bait, Message, later
from fuzz.mutations import Mutator
from rpcshare.rpc import Connection, Limits, RpcError, Stub, TransportClosedError
from rpcshare.rpc.codec import JSON, Codec
from rpcshare.rpc.messagepack import MESSAGEPACK

# What one message may take: seconds of processor time, its share of what it set in motion included.
MESSAGE_TIME = 0.05

# The limit above is for messages of a usual length: of a longer one it takes longer alone to read the text.
MESSAGE_SIZE = 64 * 1024

# What a message takes is bounded by what it may ask for: a step of a map is worth some 10 microseconds.
LIMITS = Limits(map_steps=1000)

# How many of the messages are spoilt, and of these how many as bytes.
SPOILT = 0.3
SPOILT_AS_BYTES = 0.15

# A session in which nothing goes wrong is not to be the whole of a run.
SESSION_LENGTH = 30


def encode_json(message: object) -> bytes:
    return json.dumps(message).encode()


def encode_messagepack(message: object) -> bytes:
    """Return ``message`` in MessagePack, with what that has no form for replaced."""
    return msgpack.packb(_within_64_bits(message), unicode_errors="surrogatepass")


def _within_64_bits(value: object) -> object:
    if isinstance(value, list):
        if len(value) in (2, 3) and value[0] == "bytes" and isinstance(value[1], str):
            return ["bytes", value[1].encode("utf-8", "surrogatepass"), *map(_within_64_bits, value[2:])]
        return [_within_64_bits(item) for item in value]
    if isinstance(value, dict):
        return {key: _within_64_bits(item) for key, item in value.items()}
    if type(value) is int and not -(2**63) <= value < 2**64:
        return float("nan")
    return value


@dataclass
class Encoding:
    codec: Codec
    encode: Callable[[object], bytes]


ENCODINGS = {
    "JSON": Encoding(JSON, encode_json),
    "MessagePack": Encoding(MESSAGEPACK, encode_messagepack),
}


@dataclass
class Findings:
    """What a run has been through, and what went wrong."""

    messages: int = 0
    spoilt: int = 0
    sessions: int = 0
    aborted: int = 0
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)


class Fuzzer:
    """Sends spoilt messages to connections.

    Args:
        encoding: of the messages, by its name in ``ENCODINGS``.
        seed: the same one brings the same messages.
        message_time: what one message may take, in seconds of processor time.
    """

    def __init__(self, encoding: str, seed: int, *, message_time: float = MESSAGE_TIME) -> None:
        self._message_time = message_time
        self.findings = Findings()
        # By the stub that each alone keeps: compiled, a session takes no weak references.
        self.sessions: weakref.WeakSet[Stub] = weakref.WeakSet()
        self._encoding = ENCODINGS[encoding]
        self._name = f"{encoding}, seed {seed}"
        self._random = Random(f"{encoding} {seed}")
        self._mutator = Mutator(self._random)

    async def run(self, spoilt: int) -> None:
        """Go on until so many more spoilt messages have been processed."""
        end = self.findings.spoilt + spoilt
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._note(f"the event loop: {context}"))
        logger = logging.getLogger("rpcshare.rpc")
        logger.addFilter(self._note_log)
        try:
            while self.findings.spoilt < end and not self.findings.faults:
                await self._hold_session()
                if self.findings.sessions % 100 == 0:
                    await self.hold_good_session()
            await asyncio.sleep(0.01)  # for the tasks that have just been cancelled
        finally:
            logger.removeFilter(self._note_log)
            loop.set_exception_handler(None)

    def _note(self, fault: str) -> None:
        self.findings.faults.append(f"{fault} ({self._name}, session {self.findings.sessions})")

    def _note_log(self, record: logging.LogRecord) -> bool:
        self._note(logging.Formatter().format(record))
        return False

    def _describe(self, error: BaseException) -> RpcError:
        self._note("an exception in a call: " + "".join(traceback.format_exception(error)))
        return RpcError("no")

    async def _hold_session(self) -> None:
        peer = SpoilingPeer(self._script(), self.findings)
        connection = Connection(
            peer,
            Bait(),
            codec=self._encoding.codec,
            limits=LIMITS,
            describe_error=self._describe,
            call_grace=0,
        )
        self.sessions.add(connection.session.remote_main)
        try:
            async with asyncio.timeout(10):
                await connection.run()
        except TimeoutError:
            self._note(f"a session hangs after {peer.last!r}")
        except Exception as exc:  # noqa: BLE001 -- whatever it is, it is what is looked for
            self._note(f"{exc!r} after {peer.last!r}")
        self.findings.sessions += 1
        self.findings.aborted += peer.close_code == 3000
        if peer.slowest > self._message_time:
            self._note(f"{peer.slowest:.3f} s for {peer.slowest_frame!r}")
        stats = connection.session.stats()
        if (stats.imports, stats.exports) != (0, 0):
            self._note(f"a session has ended with {stats} after {peer.last!r}")
        await asyncio.sleep(0)

    def _script(self) -> list[tuple[bytes, bool]]:
        """Return the frames of a session, and of each whether it is spoilt."""
        messages: list[Message] = []
        pushed = 0
        while len(messages) < SESSION_LENGTH:
            dialogue = self._random.choice(DIALOGUES)
            messages += [later(message, pushed) for message in dialogue]  # type: ignore[misc]  # messages again
            pushed += sum(message[0] in ("push", "stream", "pipe") for message in dialogue)
        if self._random.random() < 0.1:
            self._random.shuffle(messages)
        return [self._frame(message) for message in messages]

    def _frame(self, message: Message) -> tuple[bytes, bool]:
        if self._random.random() > SPOILT:
            return self._encoding.encode(message), False
        if self._random.random() < SPOILT_AS_BYTES:
            return self._mutator.spoil_bytes(self._encoding.encode(message)), True
        frame = self._encoding.encode(self._mutator.spoil(message))
        return (frame, True) if len(frame) <= MESSAGE_SIZE else self._frame(message)

    async def hold_good_session(self) -> None:
        """Hold one in which nothing is spoilt, and note if anything is not as it should be."""
        codec = self._encoding.codec
        for dialogue, wanted in (
            (DIALOGUES[0], [["resolve", 1, 16]]),
            (DIALOGUES[1], [["resolve", 3, 25]]),
        ):
            peer = SpoilingPeer([(self._encoding.encode(each), False) for each in dialogue], Findings())
            await Connection(peer, Bait(), codec=codec).run()
            answers = [codec.decode(frame) for frame in peer.heard]
            if answers != wanted:
                self._note(f"a session without a fault heard {answers}")


class SpoilingPeer:
    """The transport of a connection whose peer says what it has to, whatever it hears, and hangs up."""

    def __init__(self, script: list[tuple[bytes, bool]], findings: Findings) -> None:
        self._script = iter(script)
        self._findings = findings
        self._began: float | None = None
        self.last: bytes = b""
        self.heard: list[bytes] = []
        self.close_code = 0
        self.slowest = 0.0
        self.slowest_frame = b""

    async def receive(self) -> bytes | str:
        # What the last message set in motion takes place now: calls, streams, answers.
        for _ in range(3 if self.last else 0):
            await asyncio.sleep(0)
        self._stop_clock()
        frame, is_spoilt = next(self._script, (b"", False))
        if not frame:
            raise TransportClosedError("the peer has hung up")
        self._findings.messages += 1
        self._findings.spoilt += is_spoilt
        self.last = frame
        self._began = time.thread_time()
        return frame

    def _stop_clock(self) -> None:
        if self._began is not None:
            took, self._began = time.thread_time() - self._began, None
            self._findings.slowest = max(self._findings.slowest, took)
            if took > self.slowest:
                self.slowest, self.slowest_frame = took, self.last

    async def send(self, frame: bytes, *, text: bool) -> None:
        self.heard.append(frame)

    async def close(self, code: int, reason: str) -> None:
        self._stop_clock()
        self.close_code = code


def resident_bytes() -> int:
    """Return the memory of this process, once everything that can be collected has been."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096

"""Several processes that serve as one: started, watched and stopped by the one that the user started.

That one, the supervisor, runs no event loop and serves nothing. It binds the one listening socket, which the
workers inherit: with a socket for each (``SO_REUSEPORT``) the kernel would deal connections out evenly, but
to a worker that hangs or is being started anew as well, and a second server on the port would go unnoticed.
Workers are forked, once all is imported: each is ready as quickly as the first, and they share that memory.
"""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Final, NoReturn, TypeVar

from rpcshare.auth.secret_files import SecretFileError
from rpcshare.broadcast.worker_messages import (
    GONE,
    Gone,
    Letter,
    Member,
    Outbox,
    Topic,
    WorkerSockets,
    packed,
    unpacked,
)
from rpcshare.config import ConfigError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.summed_metrics import DEPARTED, TAKEN, Departed, Family, merged
from rpcshare.server.worker import FAILED, READY, Failed, Worker
from rpcshare.structured_log import structlog

__all__ = ["supervise"]

logger = structlog.get_logger("rpcshare.server")

# All in seconds. What a worker takes for its stop is in run.py; this is what it has in all.
STOP_WITHIN = 9.5

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Before a worker is started again: twice as long each time that it did not serve for long."""

STEADY_AFTER = 10.0
"""When a worker has served for so long, its end has nothing to do with the one before."""

_STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_HEEDED: Final = (*_STOPPING, signal.SIGCHLD)

Serve = Callable[[Worker], None]

T = TypeVar("T")


def supervise(
    number: int, serve: Serve, listeners: list[socket.socket], say_ready: Callable[[], None]
) -> int:
    """Run ``number`` workers until SIGTERM, SIGINT or SIGHUP; return the exit status.

    Args:
        number: how many.
        serve: what a worker does until SIGTERM; it raises why it cannot.
        listeners: the sockets on which they accept connections.
        say_ready: called when all serve.

    Raises:
        ConfigError: the settings keep a worker from starting.
        ShareError: something else does.
    """
    supervisor = _Supervisor(number, serve, listeners)
    try:
        return supervisor.run(say_ready)
    finally:
        supervisor.close()


class _Place:
    """One of the workers, and those that come after it."""

    def __init__(self, slot: int, outbox: Outbox) -> None:
        self.slot = slot
        self.outbox = outbox
        self.run = 0  # of the process that is there, or was there last
        self.ready_at: float | None = None  # when it began to serve
        self.failure: Failed | None = None  # why it could not
        self.counted: list[Family] = []  # what it counted, when that was last asked for
        self.pause = FIRST_PAUSE  # before it is started again
        self.start_at: float | None = None  # when that is due

    @property
    def member(self) -> Member:
        """Which process is there."""
        return Member(self.slot, self.run)


class _Supervisor:
    def __init__(self, number: int, serve: Serve, listeners: list[socket.socket]) -> None:
        self._serve = serve
        self._listeners = listeners
        self._boxes = WorkerSockets(number + 1)
        self._slot = number  # its own: the last
        self._places = [_Place(slot, Outbox(self._boxes.outbox(slot))) for slot in range(number)]
        self._running: dict[int, _Place] = {}  # by process id
        self._runs = count(1)
        self._limits_key = secrets.token_bytes(32)
        self._departed: list[Family] = []  # what workers have counted that have ended
        self._lifeline = os.pipe()  # which ends with this process, and nobody writes to
        self._has_started = False
        self._is_stopping = False
        self._stop_at = 0.0  # by when all have to have ended, once it is stopping
        self._status = 0
        # A signal writes its number, so that it is heard while something else is waited for.
        self._signals, self._wakeup = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def run(self, say_ready: Callable[[], None]) -> int:
        """Start the workers, and wait until all have ended because they were told to."""
        self._heed_signals()
        for place in self._places:
            self._start(place)
        while not self._is_stopping or self._running:
            self._wait()
            self._look_after_workers()
            if not (self._has_started or self._is_stopping) and all(each.ready_at for each in self._places):
                self._has_started = True
                say_ready()
        logger.info("stopped")
        return self._status

    def close(self) -> None:
        """End what is left of the workers, and let go of everything."""
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._selector.close()
        signal.set_wakeup_fd(-1)
        for end in (self._signals, self._wakeup):
            end.close()
        for descriptor in self._lifeline:
            os.close(descriptor)
        self._boxes.close()

    # What is waited for

    def _heed_signals(self) -> None:
        for end in (self._signals, self._wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in _HEEDED:
            signal.signal(number, _heard)
        for source in (self._signals, self._boxes.inbox(self._slot)):
            self._selector.register(source, selectors.EVENT_READ)

    def _wait(self) -> None:
        """Return when a signal or a message has come, or a worker is due to be started."""
        due = [place.start_at for place in self._places if place.start_at is not None]
        if self._is_stopping:
            due.append(self._stop_at)
        if any(len(place.outbox) for place in self._places):
            due.append(monotonic() + 0.05)
        self._selector.select(max(0.0, min(due) - monotonic()) if due else None)
        try:
            heard = self._signals.recv(4096)
        except BlockingIOError:
            heard = b""
        if set(heard) & set(_STOPPING):
            self._stop()

    def _look_after_workers(self) -> None:
        # Who has ended first: by then, all that it said is in the inbox.
        statuses = {pid: status for pid in self._running if (status := _status_of(pid)) is not None}
        ended = [(self._running.pop(pid), status) for pid, status in statuses.items()]
        while (data := self._boxes.receive(self._slot)) is not None:
            self._on_letter(unpacked(data))
        for place, status in ended:
            self._on_end(place, status)
        now = monotonic()
        for place in self._places:
            place.outbox.flush()
            if place.start_at is not None and place.start_at <= now:
                self._start(place)
        if self._is_stopping and now >= self._stop_at:
            for pid, place in self._running.items():
                logger.error("a worker did not stop in time, and is killed", worker=place.slot)
                os.kill(pid, signal.SIGKILL)
            self._stop_at = now + STOP_WITHIN

    def _on_letter(self, letter: Letter) -> None:
        place = self._places[letter.slot]
        if letter.sender != place.member:
            return
        if letter.topic == READY.name:
            place.ready_at = monotonic()
            if self._has_started:
                logger.info("a worker serves again", worker=place.slot)
        elif letter.topic == FAILED.name:
            place.failure = FAILED.read(letter.body)
        elif letter.topic == TAKEN.name:
            place.counted = TAKEN.read(letter.body).families

    # Beginning and end of workers

    def _start(self, place: _Place) -> None:
        place.run = next(self._runs)
        place.start_at = place.ready_at = place.failure = None
        place.counted = []
        sys.stdout.flush()
        sys.stderr.flush()
        # Heard by the process that it is for: the new one has to put off its inheritance first.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED)
        try:
            pid = os.fork()
        except OSError as exc:  # no memory, or too many processes: that passes
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEEDED)
            if not self._has_started:
                raise
            self._start_again(place, exc.strerror or str(exc))
            return
        if pid == 0:
            self._be_worker(place)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEEDED)
        self._running[pid] = place

    def _be_worker(self, place: _Place) -> NoReturn:
        """Serve, in the process that has just been forked."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            # Ctrl-C reaches all processes of a terminal: when it is time to stop, the supervisor says.
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEEDED)
            self._selector.close()
            for inherited in (self._signals, self._wakeup):
                inherited.close()
            os.close(self._lifeline[1])
            self._boxes.keep_inbox(place.slot)
            structlog.contextvars.bind_contextvars(worker=place.slot)
            status = self._served(place)
        finally:
            os._exit(status)

    def _served(self, place: _Place) -> int:
        worker = Worker(
            self._boxes,
            place.member,
            supervisor=self._slot,
            lifeline=self._lifeline[0],
            limits_key=self._limits_key,
            departed=self._departed,
        )
        try:
            self._serve(worker)
        except Exception as exc:  # noqa: BLE001 -- told by the supervisor, whatever it is
            Outbox(self._boxes.outbox(self._slot)).send(packed(place.member, FAILED, _failure(exc)))
            return 1
        return 0

    def _on_end(self, place: _Place, status: int) -> None:
        self._boxes.empty(place.slot)
        place.outbox.clear()
        self._departed = merged([self._departed, place.counted])
        # In this order: what it counted is never missing, nor there twice.
        self._tell_others(DEPARTED, Departed(*place.member, place.counted))
        self._tell_others(GONE, Gone(*place.member))
        reason = place.failure.reason if place.failure is not None else _told(status)
        if self._is_stopping:
            if status not in (0, -signal.SIGTERM):  # that is one which was not ready yet
                logger.error("a worker did not stop as it should", worker=place.slot, reason=reason)
                self._status = 1
        elif self._has_started:
            self._start_again(place, reason)
        elif place.failure is not None and place.failure.is_usage:
            raise ConfigError(reason)
        else:
            message = reason if place.failure is not None else f"a worker ended before it served: {reason}"
            raise ShareError(ErrorCode.INTERNAL, message)

    def _start_again(self, place: _Place, reason: str) -> None:
        now = monotonic()
        if place.ready_at is not None and now - place.ready_at >= STEADY_AFTER:
            place.pause = FIRST_PAUSE
        place.start_at = now + place.pause
        logger.error(
            "a worker ended, and is started again", worker=place.slot, reason=reason, after=place.pause
        )
        place.pause = min(2 * place.pause, LONGEST_PAUSE)

    def _tell_others(self, topic: Topic[T], message: T) -> None:
        data = packed(Member(self._slot, 0), topic, message)
        for place in self._running.values():
            place.outbox.send(data)

    def _stop(self) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        self._stop_at = monotonic() + STOP_WITHIN
        for listener in self._listeners:
            listener.close()
        for place in self._places:
            place.start_at = None
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)


def _heard(_number: int, _frame: object) -> None:
    """Do nothing: that it came has been written to where it is waited for."""


def _status_of(pid: int) -> int | None:
    """Return the exit status of a process that has ended; if a signal ended it, minus its number."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _told(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _failure(exc: Exception) -> Failed:
    match exc:
        case ConfigError():
            return Failed(str(exc), is_usage=True)
        case ShareError():
            return Failed(exc.message, is_usage=False)
        case SecretFileError():
            return Failed(str(exc), is_usage=False)
        case OSError():
            place = f"{exc.filename}: " if exc.filename else ""
            return Failed(f"{place}{exc.strerror or exc}", is_usage=False)
        case _:
            # The text of an exception that nobody foresaw may hold anything, a secret included.
            frame = traceback.extract_tb(exc.__traceback__)[-1]
            reason = f"internal error: {type(exc).__name__} at {frame.filename}:{frame.lineno}"
            return Failed(reason, is_usage=False)

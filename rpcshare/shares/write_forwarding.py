"""Nodes that write one share at the same time have one of them write for all: this is a share's part in it.

The store orders writers, and who loses a number reads and tries the next. So a node that finds that another
writes the share sends its callers' syncs there, and sees in the log that they are durable. Why that loses no
sync, writes none twice, and keeps callers' order is in ``docs/architecture.md``; in short:

- A forwarded sync has a number among those of its origin. Numbers of one origin rise along the log, and who
  writes an entry has read all before it: so a writer leaves out what the log has already, and what comes too
  late. That holds for the origin itself, which writes what is not in the log within some time.
- A writer takes syncs only behind those of the same origin that it has or that are settled: without a gap.
- What is known of the log is forgotten when a share is read anew. Then a writer gets another name, and what
  was meant for the former one is nobody's.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import NamedTuple, Self

from rpcshare.broadcast import EntryWritten, NodeMessage, SyncsDeclined, SyncsForwarded
from rpcshare.errors import ShareError
from rpcshare.shares import objects
from rpcshare.shares.failures import storage_unavailable
from rpcshare.shares.node_inbox import NodeInbox
from rpcshare.shares.objects import LoggedSync
from rpcshare.shares.syncdata import Batch
from rpcshare.shares.write_queue import OwnEntry, Request, WriteQueue
from rpcshare.shares.write_turns import WriteTurns
from rpcshare.storage import StoreError

__all__ = ["WriteForwarding"]

# Bytes.
_SMALL = 32 * 1024
"""Of a sync that is forwarded, at most; larger ones are written by the node that has them."""

_SMALL_ENTRY = 64 * 1024
"""Of an entry that is sent to those who wait for it, at most; larger ones they read."""

_AT_ONCE = 96 * 1024
"""Of the syncs in one message, about."""

_OUTSTANDING = 512 * 1024
"""Of a writer's syncs that wait to be written by another."""

_HELD = 1024 * 1024
"""Of others' syncs that wait to be written by one writer."""

_SYNCS = 256
"""In one message."""

# Entries.
_WITHIN = 32
"""So many behind the one that its origin had, a sync has to be written, or not at all by another node."""

_AHEAD = 8
"""Entries that are kept until those before them are there."""

_REMEMBERED = 64
"""Origins whose last numbers in the log are known."""

# Seconds.
_RECENT = 2.0
"""For so long, who wrote is expected to write again, and who forwarded to forward again."""

_TIMES = 4
"""How many times the usual time a forwarded sync may take before its origin writes it."""

_SHORTEST, _LONGEST = 0.25, 2.0
_DECLINED, _OVERDUE, _LONGEST_PAUSE = 0.25, 0.25, 30.0
"""For how long a writer gets no more syncs after one that it did not write; doubled each time."""

_GATHERING = 0.5
"""For what part of the time that an entry takes to be written, syncs gather for the next."""

_LONGEST_GATHERING = 0.05


class SyncLabel(NamedTuple):
    """Tells a forwarded sync from every other of the share."""

    origin: str
    number: int

    def __str__(self) -> str:
        return f"{self.origin}/{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what :meth:`__str__` returned."""
        origin, _, number = text.rpartition("/")
        return cls(origin, int(number))


class TakenRequest(Request):
    """A sync that another node has forwarded: its caller waits there."""

    def __init__(
        self, batch: Batch, label: SyncLabel, last_entry: int, refuse: Callable[[str], None]
    ) -> None:
        super().__init__(batch)
        self.label = label
        self.last_entry = last_entry
        self._refuse = refuse

    def succeed(self, sync_count: int) -> None:
        """Do nothing: its origin sees it in the log."""

    def fail(self, error: ShareError) -> None:  # noqa: ARG002 -- as its origin will find for itself
        """Leave it to its origin, which finds out what is wrong with it."""
        if not self.is_settled:
            self._refuse(self.label.origin)


class WriteForwarding:
    """What one open share sends to other nodes to be written, and what it writes for them.

    Nothing here waits for anything: whoever writes the share asks and tells. ``wake`` is called when there
    may be something to do; ``on_entry`` with an entry that another node has sent; ``turns`` hear who
    there is to be given one.
    """

    __slots__ = (  # there is one for each open share
        "_asked",
        "_at_risk",
        "_carried",
        "_deaf",
        "_entry_ids",
        "_gather_until",
        "_gathered",
        "_generation",
        "_held",
        "_held_size",
        "_inbox",
        "_is_gathered",
        "_is_open",
        "_knows_behind",
        "_last_logged",
        "_last_number",
        "_last_sent",
        "_leader",
        "_leader_at",
        "_logged",
        "_on_entry",
        "_origin",
        "_queue",
        "_readers",
        "_restarts",
        "_rival",
        "_sent_at",
        "_share_id",
        "_size",
        "_timer",
        "_turns",
        "_usual",
        "_waiting",
        "_wake",
        "entry",
        "name",
    )

    def __init__(
        self,
        share_id: str,
        generation: str,
        inbox: NodeInbox,
        queue: WriteQueue,
        wake: Callable[[], None],
        on_entry: Callable[[EntryWritten], None],
        turns: WriteTurns,
    ) -> None:
        self._share_id = share_id
        self._generation = generation
        self._inbox = inbox
        self._queue = queue
        self._wake = wake
        self._on_entry = on_entry
        self._turns = turns
        self._is_open = True
        self._origin = inbox.new_writer()
        self._restarts = count()
        # Numbers of this writer's syncs, which no two of them have.
        self._last_number = self._last_sent = self._last_logged = 0
        self._at_risk: dict[int, Request] = {}  # by number: sent to others, and not in the log yet
        # In the hands of self._asked.
        self._waiting: list[Request] = []
        self._asked = ""
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        # Of others' callers, by origin.
        self._held: dict[str, deque[TakenRequest]] = {}
        self._held_size = 0
        self._reset(0)
        inbox.register(share_id, self.receive)

    def restart(self, entry: int, snapshot: int = 0, labelled: Iterable[tuple[str, int, int]] = ()) -> None:
        """Take note that the log has been read anew.

        A caller whose sync may be in the snapshot is told that it is not known what became of it.

        Args:
            entry: the last one.
            snapshot: the number of that with which reading began; 0: with the first entry.
            labelled: the arguments of :meth:`logged` for all that is behind it.
        """
        self.take_back()
        self.decline_all()
        self._reset(entry)
        self._knows_behind = snapshot
        for label, number, sync_count in labelled:
            self.logged(label, number, sync_count)
        for number, request in list(self._at_risk.items()):
            if request.since < snapshot:
                del self._at_risk[number]
                request.fail(storage_unavailable())
                request.is_settled = True
            else:  # all that it might be in has been read
                request.since = entry

    def _reset(self, entry: int) -> None:
        self.entry = entry
        """The last entry of the log that is known."""
        self.name = f"{self._origin}-{next(self._restarts):x}"
        """What this writer is called until it reads all anew."""
        self._entry_ids = count()

        # Who wrote last, if it was another that writes for its own callers.
        self._leader = ""
        self._leader_at = float("-inf")
        self._rival = ""  # another that wrote last
        self._deaf: dict[str, tuple[float, float]] = {}  # until when, by writer, and for how long that is

        self._usual = _SHORTEST  # seconds until a forwarded sync is written
        self._sent_at = 0.0

        self._logged: dict[str, SyncPlace] = {}  # the last of each origin, in the order of entries
        self._knows_behind = entry  # of all entries behind this one, the syncs of others are in _logged
        self._readers: dict[str, float] = {}  # when each origin asked last
        self._carried: dict[int, EntryWritten] = {}  # entries that others sent, ahead of time
        self._gather_until = 0.0
        self._gathered = 0
        self._is_gathered: asyncio.Event | None = None  # while somebody waits for that

    def close(self) -> None:
        """Send and take nothing more. What others have been asked to write is written here."""
        self._is_open = False
        self.take_back()

    def detach(self) -> None:
        """Hear of nothing more."""
        self._is_open = False
        self._stop_timer()
        self.decline_all()
        self._inbox.unregister(self._share_id, self.receive)

    def new_entry_id(self) -> str:
        """Return a name for an entry, which tells who wrote it."""
        return f"{self.name}.{next(self._entry_ids):x}"

    # For this writer's callers

    @property
    def is_waiting(self) -> bool:
        """Whether another node has been asked to write syncs, behind which later ones have to wait."""
        return bool(self._waiting)

    def __len__(self) -> int:
        """How many syncs those are."""
        return len(self._waiting)

    @property
    def leader(self) -> str:
        """Who writes for this node; empty: it has to write itself."""
        if self._waiting:
            return self._asked
        now = monotonic()
        if not self._is_open or not self._leader or now - self._leader_at > _RECENT:
            return ""
        deaf_until, _ = self._deaf.get(self._leader, (0.0, 0.0))
        return "" if now < deaf_until else self._leader

    def forward(self) -> None:
        """Send what may be sent of what waits in the queue to who writes for this node."""
        leader = self.leader
        if not leader:
            return
        self.decline_all()  # who does not write does not for others
        # It may decline at once: then it is no leader any more.
        while self.leader == leader and self._size < _OUTSTANDING:
            requests = self._queue.take_small(_SMALL, _AT_ONCE, _SYNCS)
            if not requests:
                return
            if not self._send(leader, requests):
                self._queue.put_back(requests)
                self._give_up(leader, _OVERDUE)

    def _send(self, leader: str, requests: list[Request]) -> bool:
        for request in requests:
            if not request.number:
                self._last_number += 1
                request.number, request.since = self._last_number, self.entry
        first = requests[0]
        if self.entry - first.since > _WITHIN // 2:
            return False
        syncs = [LoggedSync(0, request.batch.items) for request in requests if request.batch]
        message = SyncsForwarded(
            share_id=self._share_id,
            generation=self._generation,
            writer=leader,
            origin=self._origin,
            reader=self.name,
            first=first.number,
            settled=(self._waiting[0] if self._waiting else first).number - 1,
            since=first.since,
            body=objects.pack(objects.encode_entry("", syncs, {})),
        )
        self._asked = leader  # whose answer may be here before this returns
        if not self._waiting:
            self._sent_at = monotonic()
            self._start_timer()
        self._waiting += requests
        self._size += sum(map(_size_of, requests))
        self._last_sent = max(self._last_sent, requests[-1].number)
        self._at_risk = {n: request for n, request in self._at_risk.items() if not request.done.done()}
        self._at_risk.update((request.number, request) for request in requests)
        if self._inbox.send(leader, message):
            return True
        for _ in requests:  # nobody has them
            self._waiting.pop()
        self._size -= sum(map(_size_of, requests))
        if not self._waiting:
            self._stop_timer()
        return False

    def is_led(self, own: OwnEntry) -> bool:
        """Leave out of an entry what is settled; return whether another node is to write the rest.

        For who finds the number taken.
        """
        is_led = bool(self.leader)
        if is_led:
            self.decline_all()
        own.requests = [request for request in own.requests if not request.is_settled]
        return is_led and bool(own.requests) and own.requests[0].is_small(_SMALL)

    def label(self, request: Request) -> str:
        """Return what to write into the log with a sync that this writer is about to write.

        Empty, as long as nobody else may have any sync of this writer's callers.
        """
        if isinstance(request, TakenRequest):
            return str(request.label)
        if not request.number and self._last_sent > self._last_logged:
            self._last_number += 1
            request.number, request.since = self._last_number, self.entry
        return str(SyncLabel(self._origin, request.number)) if request.number else ""

    def take_back(self) -> None:
        """Put what another was asked to write into the queue again, to be written here.

        The other may write it all the same: the log says so then.
        """
        self._stop_timer()
        self._queue.put_back(self._waiting)
        self._waiting.clear()
        self._size = 0

    def end(self, error: ShareError) -> None:
        """Fail all syncs that others have been asked to write, and leave theirs to them."""
        self.decline_all()
        self._stop_timer()
        self._waiting.clear()
        self._size = 0
        for request in self._at_risk.values():
            request.fail(error)
            request.is_settled = True
        self._at_risk.clear()

    def _give_up(self, leader: str, pause: float) -> None:
        """Write by oneself for a while."""
        self.take_back()
        _, before = self._deaf.get(leader, (0.0, 0.0))
        lasts = min(max(2 * before, pause), _LONGEST_PAUSE)
        self._deaf = {leader: (monotonic() + lasts, lasts)}
        self._wake()

    def _start_timer(self) -> None:
        self._stop_timer()
        delay = min(max(_TIMES * self._usual, _SHORTEST), _LONGEST)
        self._timer = asyncio.get_running_loop().call_later(delay, self._give_up, self._asked, _OVERDUE)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What the log has

    def others_wrote(self, entry_id: str, syncs: Iterable[LoggedSync]) -> None:
        """Take note of who wrote an entry that this writer did not, or was not told to have written."""
        author, dot, _ = entry_id.partition(".")
        # A former version takes no syncs. This writer reads its own entries where answers were lost.
        if not dot or author.startswith(f"{self._origin}-"):
            self._leader = ""
        elif any(not sync.label or author.startswith(f"{_origin_of(sync.label)}-") for sync in syncs):
            # Who only writes what others forward is not needed for that.
            self._leader, self._leader_at = author, monotonic()

    def read(self, entry_id: str, syncs: Iterable[LoggedSync]) -> None:
        """Take note of an entry that was read from the store."""
        author, dot, _ = entry_id.partition(".")
        if dot:
            self._inbox.has_read(author)
        self._rival = author
        self.others_wrote(entry_id, syncs)

    def logged(self, label: str, entry: int, sync_count: int) -> bool:
        """Take note of a forwarded sync in the log; return whether it is of this writer's callers."""
        origin, number = SyncLabel.parse(label)
        if origin == self._origin:
            self._settle(number, sync_count)
            return True
        self._logged.pop(origin, None)
        self._logged[origin] = SyncPlace(number, entry)
        if len(self._logged) > _REMEMBERED:
            self._knows_behind = self._logged.pop(next(iter(self._logged))).entry
        held = self._held.get(origin)
        while held and held[0].label.number <= number:
            self._let_go(held.popleft())
        if not held:
            self._held.pop(origin, None)
        return False

    def _settle(self, number: int, sync_count: int) -> None:
        self._last_logged = number
        while self._waiting and self._waiting[0].number <= number:
            self._size -= _size_of(self._waiting.pop(0))
        for each in [each for each in self._at_risk if each <= number]:
            request = self._at_risk.pop(each)
            request.is_settled = True
            if each == number:
                request.succeed(sync_count)
            else:  # no writer leaves one out
                request.fail(storage_unavailable())
        if not self._waiting and len(self._queue):
            self._wake()
        if self._timer is not None:
            now = monotonic()
            self._usual += (now - self._sent_at - self._usual) / 8
            self._sent_at = now
            self._deaf.clear()
            self._stop_timer()
            if self._waiting:
                self._start_timer()

    def wrote(
        self, entry: int, previous: str, body: bytes, etag: str, *, began_at: float, syncs: int
    ) -> None:
        """Tell those who wait for it of an entry that this writer has written."""
        self._leader = ""
        now = monotonic()
        self._readers = {name: at for name, at in self._readers.items() if now - at < _RECENT}
        if not self._readers:
            self._gathered = 0
            return
        # Who has been answered will ask again.
        self._gathered = len(self._queue) + syncs
        self._gather_until = now + min(_GATHERING * (now - began_at), _LONGEST_GATHERING)
        if len(body) > _SMALL_ENTRY:
            return
        for reader in self._readers:
            message = EntryWritten(self._share_id, self._generation, reader, entry, previous, body, etag)
            self._inbox.send(reader, message)

    async def gather(self) -> None:
        """Wait for a little while for the syncs of those who forward, so that they share an entry."""
        left = self._gather_until - monotonic()
        if left <= 0 or len(self._queue) >= self._gathered:
            return
        self._is_gathered = asyncio.Event()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_gathered.wait(), left)
        self._is_gathered = None

    def arrived(self) -> None:
        """Take note that there is one more in the queue."""
        if self._is_gathered is not None and len(self._queue) >= self._gathered:
            self._is_gathered.set()

    def carried(self, entry: int, entry_id: str) -> EntryWritten | None:
        """Return the entry behind ``entry``, whose ID is ``entry_id``, if another node has sent it."""
        if not self._carried:
            return None
        self._carried = {number: each for number, each in self._carried.items() if number > entry}
        found = self._carried.pop(entry + 1, None)
        if found is None or found.previous != entry_id or not (entry_id or entry == 0):
            return None
        return found

    def may_be_ours(self, entry_id: str) -> bool:
        """Whether an entry that was sent is of a node on the same store."""
        return self._inbox.knows(entry_id)

    # For others' callers

    def receive(self, message: NodeMessage) -> None:
        """Take a message from another node."""
        match message:
            case SyncsForwarded():
                if not self._take(message):
                    self._inbox.decline(message)
            case SyncsDeclined():
                if message.origin == self._origin and message.writer == self._asked and self._waiting:
                    self._give_up(message.writer, _DECLINED)
            case EntryWritten():
                is_mine = message.reader == self.name and message.generation == self._generation
                if is_mine and self.entry < message.entry <= self.entry + _AHEAD:
                    self._carried[message.entry] = message
                    self._on_entry(message)

    def _take(self, message: SyncsForwarded) -> bool:
        """Take syncs, to be written with those of this node's callers; return whether they are."""
        origin, last_entry = message.origin, message.since + _WITHIN
        if not self._inbox.knows(origin):
            if self._inbox.is_first_message_of(origin):
                self._turns.give_way()
            return False
        known = self._last_known(origin)
        if not (
            self._is_open
            and message.writer == self.name
            and message.generation == self._generation
            and not self.leader
            # Of all entries that they might be in, it is known which they hold.
            and self._knows_behind <= message.since
            and self.entry < last_entry
            # None that has to come before them is missing.
            and message.first - 1 <= max(known, message.settled)
        ):
            return False
        try:
            syncs = objects.decode_entry(message.body).syncs(())
        except StoreError:
            return False
        new = list(enumerate(syncs, message.first))[max(known + 1 - message.first, 0) :]
        requests = [
            TakenRequest(_batch_of(sync), SyncLabel(origin, number), last_entry, self.decline)
            for number, sync in new
        ]
        size = sum(map(_size_of, requests))
        if self._held_size + size > _HELD or not self._inbox.hold(size):
            return False
        self._held_size += size
        self._readers[message.reader] = monotonic()
        if self._rival.startswith(f"{origin}-"):
            self._turns.others_follow()
        for request in requests:  # none, if the message came before
            self._held.setdefault(origin, deque()).append(request)
            self._queue.append(request)
        self.arrived()
        self._wake()
        return True

    def _last_known(self, origin: str) -> int:
        """Return the number of an origin's last sync that is in the log or waits here."""
        if held := self._held.get(origin):
            return held[-1].label.number
        return self._logged[origin].number if origin in self._logged else 0

    def expire(self) -> None:
        """Leave those syncs to their origins that may not be in the next entry any more."""
        next_entry = self.entry + 1
        for origin in [name for name, held in self._held.items() if held[0].last_entry < next_entry]:
            self.decline(origin)

    def decline(self, origin: str) -> None:
        """Leave to an origin all syncs of it that are not written yet: a later one must not overtake one."""
        for request in self._held.pop(origin, ()):
            self._let_go(request)
        self._inbox.send(origin, SyncsDeclined(self._share_id, self.name, origin))

    def decline_all(self) -> None:
        """Leave all syncs of others to their origins."""
        for origin in list(self._held):
            self.decline(origin)

    def _let_go(self, request: TakenRequest) -> None:
        request.is_settled = True
        size = _size_of(request)
        self._held_size -= size
        self._inbox.let_go(size)


class SyncPlace(NamedTuple):
    """Where the last sync of an origin is in the log."""

    number: int
    entry: int


def _size_of(request: Request) -> int:
    return request.batch.size if request.batch else 0


def _origin_of(label: str) -> str:
    return SyncLabel.parse(label).origin


def _batch_of(sync: LoggedSync) -> Batch:
    values = (value for item in sync.items for value in item.values)
    return Batch(sync.items, sum(len(key) + len(body) for key, body in values))

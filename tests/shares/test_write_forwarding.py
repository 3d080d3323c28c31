"""What a node does with syncs that another forwards to it, and with the entries that it is sent.

That it all works together, whatever gets lost: test_write_forwarding_at_random.py.
"""

import asyncio
from typing import Any

import pytest
from test_write_turns import FarStore

from rpcshare.broadcast import (
    EntryWritten,
    LocalBroadcaster,
    NodeMessage,
    SyncsDeclined,
    SyncsForwarded,
)
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares import LogSettings, objects
from rpcshare.shares.node_inbox import NodeInbox
from rpcshare.shares.objects import LoggedSync
from rpcshare.shares.quotas import Room
from rpcshare.shares.state import Content
from rpcshare.shares.syncdata import parse_batch
from rpcshare.shares.write_forwarding import WriteForwarding
from rpcshare.shares.write_queue import WriteQueue
from rpcshare.shares.write_turns import WriteTurns
from support.items import part
from support.narrowing import not_none
from support.service_fixtures import using
from support.share_stores import contents

SHARE, GENERATION = "12345678", "a" * 16
OTHER = "b" * 16 + "0"  # an origin on another node


class Wire(LocalBroadcaster):
    """A broadcaster of which nothing comes; it keeps what is sent."""

    def __init__(self):
        super().__init__()
        self.sent: list[NodeMessage] = []
        self.is_whole = True

    def send(self, node, message):
        if self.is_whole:
            self.sent.append(message)
        return self.is_whole

    def listen(self, node, callback):
        return lambda: None


class Writer:
    """One share's forwarding, and what belongs to it."""

    def __init__(self):
        self.wire = Wire()
        self.queue = WriteQueue(LogSettings())
        self.inbox = NodeInbox(self.wire)
        self.inbox.has_read(OTHER)
        self.entries: list[EntryWritten] = []
        self.forwarding = WriteForwarding(
            SHARE,
            GENERATION,
            self.inbox,
            self.queue,
            wake=lambda: None,
            on_entry=self.entries.append,
            turns=WriteTurns(is_shared=True, clock=lambda: 100.0),
        )

    def add(self, *batches, room=None):
        return [self.queue.add(parse_batch(batch), room) for batch in batches]

    def receive(self, *items, **changes):
        """Receive syncs of another node; return whether they are taken."""
        syncs = [LoggedSync(0, parse_batch([item]).items) for item in items]
        fields: dict[str, Any] = {
            "share_id": SHARE,
            "generation": GENERATION,
            "writer": self.forwarding.name,
            "origin": OTHER,
            "reader": f"{OTHER}-0",
            "first": 1,
            "settled": 0,
            "since": self.forwarding.entry,
            "body": bytes(objects.encode_entry("", syncs, {})),
        } | changes
        before = len(self.declined)
        self.forwarding.receive(SyncsForwarded(**fields))
        return len(self.declined) == before

    @property
    def declined(self):
        return [message for message in self.wire.sent if isinstance(message, SyncsDeclined)]

    @property
    def forwarded(self):
        return [message for message in self.wire.sent if isinstance(message, SyncsForwarded)]

    def waiting(self):
        """Take what is to be written, and return the IDs of its parts."""
        self.forwarding.expire()
        return [ids_of(not_none(request.batch).items) for request in self.queue.take(Content())]

    def follow(self, leader=f"{OTHER}-0"):
        self.forwarding.others_wrote(f"{leader}.1", [LoggedSync(0, ())])


def ids_of(items):
    return [key.decode().strip('"') for item in items for key, _ in item.values]


@pytest.fixture
async def writer():
    made = Writer()
    yield made
    made.forwarding.detach()


async def test_what_is_forwarded_is_written_behind_what_was_there(writer):
    writer.add([part("mine")])
    assert writer.receive(part("a"), part("b"))
    assert writer.waiting() == [["mine"], ["a"], ["b"]]


async def test_a_message_that_comes_twice_is_taken_once(writer):
    assert writer.receive(part("a"), part("b"))
    assert writer.receive(part("a"), part("b"))
    assert writer.receive(part("a"), part("b"), part("c"))
    assert writer.waiting() == [["a"], ["b"], ["c"]]


async def test_what_is_in_the_log_is_not_written_again(writer):
    assert writer.receive(part("a"), part("b"), part("c"))
    writer.forwarding.logged(f"{OTHER}/2", 1, 1)
    assert writer.receive(part("a"), part("b"), since=0)
    assert writer.waiting() == [["c"]]


async def test_a_sync_does_not_overtake_one_that_got_lost(writer):
    assert not writer.receive(part("b"), first=2)
    assert writer.receive(part("a"), first=1)
    assert not writer.receive(part("c"), first=3)
    assert writer.waiting() == [["a"]]


async def test_what_has_failed_at_its_origin_is_not_waited_for(writer):
    assert writer.receive(part("c"), first=3, settled=2)
    assert writer.waiting() == [["c"]]


@pytest.mark.parametrize("changes", [{"writer": "c" * 16 + "0-0"}, {"generation": "d" * 16}])
async def test_what_was_meant_for_another_is_declined(writer, changes):
    assert not writer.receive(part("a"), **changes)
    assert writer.waiting() == []


async def test_what_a_node_sends_that_is_not_known_to_write_to_the_same_store_is_declined(writer):
    """One on a copy of the store has the same keys, and may hear of the same shares."""
    for _ in range(2):
        assert not writer.receive(part("a"), origin="c" * 17, reader=f"{'c' * 17}-0")
    writer.forwarding.read(f"{'c' * 17}-0.1", [LoggedSync(0, ())])
    writer.forwarding.wrote(2, "", b"", "", began_at=0.0, syncs=1)
    assert writer.receive(part("a"), origin="c" * 17, reader=f"{'c' * 17}-0")


async def test_what_was_meant_for_a_writer_before_it_read_all_anew_is_declined(writer):
    name = writer.forwarding.name
    writer.forwarding.restart(5)
    assert not writer.receive(part("a"), writer=name, since=5)


async def test_what_may_be_in_the_part_of_the_log_that_is_not_known_is_declined(writer):
    writer.forwarding.restart(5, snapshot=5)
    assert not writer.receive(part("a"), since=4)
    assert writer.receive(part("a"), since=5)


async def test_origins_that_have_been_forgotten_are_declined_what_may_be_in_the_log(writer):
    writer.inbox.has_read("c" * 17)
    for number in range(100):
        writer.forwarding.logged(f"{'c' * 16}{number:x}/1", number + 1, number + 1)
        writer.forwarding.entry = number + 1
    assert not writer.receive(part("a"), since=0, origin="c" * 17)
    assert writer.receive(part("a"), since=99, origin=f"{'c' * 16}ff")


async def test_what_waits_for_too_many_entries_is_left_to_its_origin(writer):
    assert writer.receive(part("a"))
    writer.forwarding.entry += 32
    assert writer.waiting() == []
    assert writer.declined[-1] == SyncsDeclined(SHARE, writer.forwarding.name, OTHER)
    assert not writer.receive(part("a"), since=0)


async def test_when_one_is_not_written_neither_are_those_behind_it(writer):
    assert writer.receive(part("a"), part("b"))
    taken = writer.queue.take(Content())
    assert writer.receive(part("c"), first=3)
    taken[0].fail(ShareError(ErrorCode.STORAGE_UNAVAILABLE, "Storage unavailable"))
    assert writer.waiting() == []
    assert len(writer.declined) == 1


async def test_a_writer_takes_no_more_than_it_has_room_for(writer):
    number = 0
    while writer.receive(
        {**part(f"p{number}"), "data": {"id": f"p{number}", "x": "y" * 30_000}}, first=number + 1
    ):
        number += 1
    assert 30 <= number <= 40  # a megabyte


async def test_a_node_takes_no_more_than_it_has_room_for(writer):
    assert writer.inbox.hold(16 * 2**20 - 10)
    assert not writer.receive(part("a"))
    writer.inbox.let_go(16 * 2**20 - 10)
    assert writer.receive(part("a"))


async def test_room_is_free_again_when_syncs_are_in_the_log(writer):
    for number in range(1, 200):
        item = {**part("p"), "data": {"id": "p", "x": "y" * 30_000}}
        assert writer.receive(item, first=number)
        writer.forwarding.entry = number
        writer.forwarding.logged(f"{OTHER}/{number}", number, number)


async def test_who_knows_of_no_other_writer_forwards_nothing(writer):
    writer.add([part("a")])
    writer.forwarding.forward()
    assert writer.waiting() == [["a"]]
    assert writer.wire.sent == []


async def test_syncs_are_sent_to_who_has_written_last_and_told_when_they_are_in_the_log(writer):
    requests = writer.add([part("a")], [part("b")])
    writer.follow()
    writer.forwarding.forward()
    (message,) = writer.forwarded
    assert (message.writer, message.first, message.settled, message.since) == (f"{OTHER}-0", 1, 0, 0)
    assert writer.forwarding.logged(f"{message.origin}/1", 1, 7)
    assert (requests[0].done.result(), requests[1].done.done()) == (7, False)
    assert writer.forwarding.is_waiting
    assert writer.forwarding.logged(f"{message.origin}/2", 2, 8)
    assert requests[1].done.result() == 8
    assert not writer.forwarding.is_waiting


async def test_nothing_is_sent_to_who_only_writes_for_others(writer):
    writer.forwarding.others_wrote(f"{OTHER}-0.1", [LoggedSync(0, (), f"{'c' * 17}/1")])
    assert writer.forwarding.leader == ""
    writer.forwarding.others_wrote(f"{OTHER}-0.2", [LoggedSync(0, (), f"{OTHER}/1")])
    assert writer.forwarding.leader == f"{OTHER}-0"


async def test_nothing_is_sent_to_a_former_version(writer):
    writer.follow()
    writer.forwarding.others_wrote("0123456789abcdef1", [LoggedSync(0, ())])
    assert writer.forwarding.leader == ""


async def test_a_writer_does_not_follow_itself_when_it_reads_its_own_entry(writer):
    writer.forwarding.others_wrote(writer.forwarding.new_entry_id(), [LoggedSync(0, ())])
    assert writer.forwarding.leader == ""


async def test_what_is_large_or_near_a_quota_or_a_deletion_is_not_sent(writer):
    writer.follow()
    refusal = ShareError(ErrorCode.PAYLOAD_TOO_LARGE, "too much")
    writer.add([part("quota")], room=Room(1, refusal))
    writer.add([part("behind")])
    writer.forwarding.forward()
    assert writer.wire.sent == []
    writer.queue.fail(refusal)
    writer.add([{"type": "part", "data": {"id": "large", "x": "y" * 40_000}}])
    writer.forwarding.forward()
    assert writer.wire.sent == []
    writer.queue.fail(refusal)
    writer.queue.add(None)
    writer.forwarding.forward()
    assert writer.wire.sent == []


async def test_what_is_declined_is_written_here_first_and_says_which_it_is(writer):
    writer.follow()
    requests = writer.add([part("a")], [part("b")])
    writer.forwarding.forward()
    origin = writer.forwarded[0].origin
    requests += writer.add([part("c")])
    writer.forwarding.receive(SyncsDeclined(SHARE, f"{OTHER}-0", origin))
    assert not writer.forwarding.is_waiting
    assert writer.forwarding.leader == ""  # for a while
    # Also the one that nobody else has: it comes behind those that another may write too late.
    assert [writer.forwarding.label(request) for request in requests] == [f"{origin}/{n}" for n in (1, 2, 3)]
    assert writer.waiting() == [["a"], ["b"], ["c"]]
    writer.forwarding.logged(f"{origin}/3", 1, 3)
    (request,) = writer.add([part("d")])
    assert writer.forwarding.label(request) == ""


async def test_what_another_does_not_write_in_time_is_written_here(writer):
    writer.follow()
    writer.add([part("a")])
    writer.forwarding.forward()
    async with asyncio.timeout(5):
        while writer.forwarding.is_waiting:  # noqa: ASYNC110 -- of what nobody tells
            await asyncio.sleep(0.01)
    assert writer.waiting() == [["a"]]


async def test_who_cannot_be_reached_is_sent_nothing_for_a_while(writer):
    writer.follow()
    writer.wire.is_whole = False
    writer.add([part("a")])
    writer.forwarding.forward()
    assert not writer.forwarding.is_waiting
    assert writer.forwarding.leader == ""
    assert writer.waiting() == [["a"]]


async def test_a_caller_whose_sync_may_be_in_what_was_read_anew_is_told_that_it_is_not_known(writer):
    writer.follow()
    requests = writer.add([part("a")], [part("b")])
    writer.forwarding.forward()
    writer.forwarding.take_back()
    writer.forwarding.restart(9, snapshot=3)
    for request in requests:
        with pytest.raises(ShareError, match="Storage unavailable"):
            request.done.result()
    assert writer.waiting() == []


def written(writer, **changes):
    fields: dict[str, Any] = {
        "share_id": SHARE,
        "generation": GENERATION,
        "reader": writer.forwarding.name,
        "entry": 6,
        "previous": "x-0.5",
        "body": b"",
        "etag": "e",
    }
    return EntryWritten(**(fields | changes))


async def test_an_entry_that_is_next_is_taken(writer):
    writer.forwarding.restart(5)
    message = written(writer)
    writer.forwarding.receive(message)
    assert writer.entries == [message]
    assert writer.forwarding.carried(5, "x-0.5") is message
    assert writer.forwarding.carried(5, "x-0.5") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": "d" * 16},
        {"reader": f"{OTHER}-0"},
        {"entry": 5},
        {"entry": 7},
        {"entry": 2**40},
        {"previous": "y-0.5"},
        {"previous": ""},
    ],
    ids=str,
)
async def test_an_entry_of_another_log_or_place_is_not_taken(writer, changes):
    writer.forwarding.restart(5)
    writer.forwarding.receive(written(writer, **changes))
    assert writer.forwarding.carried(5, "x-0.5") is None


async def test_an_entry_is_not_taken_where_it_is_not_known_what_is_before_it(writer):
    writer.forwarding.restart(5)
    writer.forwarding.receive(written(writer, previous=""))
    assert writer.forwarding.carried(5, "") is None


async def test_an_entry_that_was_sent_before_all_was_read_anew_is_not_taken(writer):
    """The store may have been put back to before it: then there is another in its place, or none."""
    writer.forwarding.restart(5)
    message = written(writer)
    writer.forwarding.restart(5)
    writer.forwarding.receive(message)
    assert writer.forwarding.carried(5, "x-0.5") is None


async def test_an_entry_that_is_sent_ahead_waits_for_the_one_before_it(writer):
    writer.forwarding.restart(5)
    writer.forwarding.receive(message := written(writer, entry=7, previous="x-0.6"))
    assert writer.forwarding.carried(5, "x-0.5") is None
    writer.forwarding.entry = 6
    assert writer.forwarding.carried(6, "x-0.6") is message


async def test_two_nodes_that_write_one_share_put_syncs_of_both_into_one_entry(
    new_service, alice, store, broadcaster
):
    """And each sync is told its own place in the order of all."""
    share = await new_service(store).create(alice, "ses_12345678")
    nodes = [new_service(FarStore(store), broadcaster, shared_store=True) for _ in range(2)]
    acknowledged = {}

    async def write(which, caller):
        for number in range(20):
            name = f"{which}-{caller}-{number}"
            acknowledged[name] = await nodes[which].sync(alice, share.id, None, [part(name)])

    await asyncio.gather(*(write(which, caller) for which in range(2) for caller in range(4)))
    order = []
    number_of_entries = 0
    for key, body in sorted(contents(store).items()):
        if "/log/" in key:
            number_of_entries += 1
            order += [name for sync in objects.decode_entry(body).syncs(()) for name in ids_of(sync.items)]
    assert {name: place for place, name in enumerate(order, 1)} == acknowledged
    assert number_of_entries < 80  # 20 is the least, and 160 as many as there are syncs
    for node in nodes:
        async with using(node, share.id) as log:
            assert log.state.sync_count == 160

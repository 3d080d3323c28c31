"""Several nodes on one store: their writes to one share, and what each sees of the others'."""

import asyncio
import itertools
import json
from collections.abc import Awaitable

import pytest

from rpcshare.broadcast import LocalBroadcaster, LogAppended
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares import LogSettings, objects
from rpcshare.shares.compaction import CompactionPolicy
from rpcshare.shares.journal import read_head
from rpcshare.shares.objects import LoggedSync
from rpcshare.shares.syncdata import parse_batch
from rpcshare.storage import SqliteStore
from support.items import part
from support.narrowing import not_none
from support.service_fixtures import has_deleted, using
from support.share_stores import FailingStore, GatedStore, RecordingStore, YieldingStore, contents, until

COMPACTING = CompactionPolicy(tail_size=0, tail_ratio=0.0, tail_entries=2)
UNTRUSTING = LogSettings(trusted_for=0.0, grace=0.0, compaction=COMPACTING)
"""No time is short enough for what others did to be superfluous and gone: nothing to rely on."""


@pytest.fixture
def new_node(new_service, store):
    """Return a function that makes a node; alone=True: no message reaches it or leaves it."""
    seeds = itertools.count()

    def make(*, alone=False, on=None, **options):
        hearing = LocalBroadcaster() if alone else None
        on = on or YieldingStore(store, seed=next(seeds))
        return new_service(on, hearing, shared_store=True, **options)

    return make


def diff(file):
    return {"type": "session_diff", "data": [{"file": file, "after": file * 100}]}


async def acknowledges(call: Awaitable[object]):
    """Return whether ``call`` succeeded; if not, it may have taken place or not."""
    (result,) = await asyncio.gather(call, return_exceptions=True)
    if isinstance(result, ShareError):
        assert result.code is ErrorCode.STORAGE_UNAVAILABLE
        return False
    assert isinstance(result, int)
    return True


async def read(service, caller, share_id):
    return json.loads(await service.agent_session(caller, share_id))


@pytest.mark.parametrize("alone", [False, True], ids=["with messages", "without messages"])
async def test_two_nodes_write_one_share_and_nothing_is_lost(new_node, alice, alone):
    nodes = [new_node(alone=alone), new_node(alone=alone)]
    share = (await nodes[0].create(alice, "ses_1")).id
    counts = await asyncio.gather(
        *(
            nodes[n % 2].sync(alice, share, None, [part(str(n)), diff(str(n % 7)), diff(f"own {n}")])
            for n in range(200)
        )
    )
    assert sorted(counts) == list(range(1, 201))
    first, second = [await read(node, alice, share) for node in nodes]
    assert first == second == await read(new_node(), alice, share)
    assert sorted(int(part["id"]) for part in first["parts"]) == list(range(200))
    assert sum(diff["file"].startswith("own") for diff in first["diffs"]) == 200
    assert len(first["diffs"]) == 400


@pytest.mark.parametrize("seed", range(8))
async def test_no_acknowledged_sync_is_lost_however_soon_entries_are_deleted(new_node, store, alice, seed):
    nodes = [
        new_node(alone=True, settings=UNTRUSTING, on=YieldingStore(store, seed=2 * seed + n))
        for n in range(2)
    ]
    share = (await nodes[0].create(alice, "ses_1")).id
    acknowledged = []

    async def write(node, name):
        for number in range(15):
            item = f"{name} {number}"
            if await acknowledges(node.sync(alice, share, None, [part(item), diff(item)])):
                acknowledged.append(item)

    await asyncio.gather(*(write(node, name) for name, node in zip("abcd", nodes * 2, strict=True)))
    for node in nodes:
        await node.close()
    merged = await read(new_node(), alice, share)
    files = [diff["file"] for diff in merged["diffs"]]
    assert {part["id"] for part in merged["parts"]} == set(files)
    assert len(set(files)) == len(files)  # none twice
    assert set(acknowledged) <= set(files)
    assert len(acknowledged) >= 25


async def test_a_node_that_slept_through_a_compaction_writes_behind_it(new_node, store, alice):
    asleep = new_node(alone=True, settings=LogSettings(trusted_for=0.0))
    share = (await asleep.create(alice, "ses_1", [part("0")])).id
    awake = new_node(alone=True, settings=UNTRUSTING)
    for number in range(1, 10):
        await awake.sync(alice, share, None, [part(str(number))])
    await awake.close()
    assert await asleep.sync(alice, share, None, [part("10")]) == 11
    merged = await read(new_node(), alice, share)
    assert [part["id"] for part in merged["parts"]] == [str(number) for number in range(11)]


async def slow_writer_overtaken(new_node, store, alice):
    """Return a node whose write reaches the store only after others' took its number and went."""
    gated = GatedStore(lambda name, key: name == "put" and "/log/" in key, store)
    slow = new_node(alone=True, on=gated, settings=LogSettings(trusted_for=0.0))
    share = (await slow.create(alice, "ses_1")).id
    write = asyncio.create_task(slow.sync(alice, share, None, [part("slow")]))
    await gated.reached.wait()
    return slow, share, write, gated


async def test_a_write_overtaken_by_a_compaction_is_not_acknowledged(new_node, store, alice):
    slow, share, write, gated = await slow_writer_overtaken(new_node, store, alice)
    other = new_node(alone=True, settings=UNTRUSTING)
    for number in range(6):
        await other.sync(alice, share, None, [part(str(number))])
    await other.close()
    gated.open()
    with pytest.raises(ShareError) as caught:
        await write
    assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
    assert await slow.sync(alice, share, None, [part("again")]) == 7
    assert len((await read(new_node(), alice, share))["parts"]) == 7


async def test_a_write_overtaken_by_a_deletion_is_refused_and_leaves_nothing(new_node, store, alice):
    _, share, write, gated = await slow_writer_overtaken(new_node, store, alice)
    other = new_node(alone=True, settings=UNTRUSTING)
    await other.delete(alice, share, None)
    await until(lambda: has_deleted(other))
    gated.open()
    with pytest.raises(ShareError, match="Share not found"):
        await write
    assert sorted(contents(store)) == ["session/ses_1", f"share/{share}/head"]


async def test_a_node_sees_what_another_wrote(new_node, alice):
    first, second = new_node(), new_node()
    share = (await first.create(alice, "ses_1", [part("a")])).id
    assert len((await read(second, alice, share))["parts"]) == 1
    await first.sync(alice, share, None, [part("b")])
    assert len((await read(second, alice, share))["parts"]) == 2


async def test_a_node_sees_what_another_wrote_without_any_message(new_node, alice):
    first, second = new_node(alone=True), new_node(alone=True)
    share = (await first.create(alice, "ses_1", [part("a")])).id
    assert len((await read(second, alice, share))["parts"]) == 1
    await first.sync(alice, share, None, [part("b")])
    assert len((await read(second, alice, share))["parts"]) == 2


async def test_reads_that_come_together_look_at_the_store_once(new_node, store, alice):
    recording = RecordingStore(YieldingStore(store))
    node = new_node(on=recording)
    share = (await node.create(alice, "ses_1", [part("a")])).id
    recording.calls.clear()
    await asyncio.gather(*(node.agent_session(alice, share) for _ in range(50)))
    assert len(recording.calls) <= 2


async def test_a_subscriber_hears_of_another_nodes_sync_by_one_request(new_service, store, alice):
    first, recording = new_service(), RecordingStore(store)
    second = new_service(recording)
    share = (await first.create(alice, "ses_1", [part("a")])).id
    subscription = await second.subscribe(alice, share, 1)
    recording.calls.clear()
    await first.sync(alice, share, None, [part("b"), diff("f")])
    assert (await anext(subscription)).sync_count == 2
    assert [name for name, _ in recording.calls] == ["get"]


async def live_generation(store, share_id):
    return not_none(await read_head(store, share_id)).head.generation


@pytest.mark.parametrize("ahead", [1, 2, 1000])
async def test_a_message_about_an_entry_that_is_not_there_changes_nothing(
    new_service, store, broadcaster, alice, ahead
):
    node, reader = new_service(), new_service()
    share = (await node.create(alice, "ses_1", [part("a")])).id
    subscription = await reader.subscribe(alice, share, 1)
    false = LogAppended(share, await live_generation(store, share), 1 + ahead)
    await broadcaster.publish(false)
    for count, name in enumerate("bcd", start=2):
        assert await node.sync(alice, share, None, [part(name)]) == count
        await broadcaster.publish(false)
        assert (await anext(subscription)).sync_count == count
    cold = await read(new_service(), alice, share)
    assert [part["id"] for part in cold["parts"]] == ["a", "b", "c", "d"]


async def test_a_message_of_a_generation_that_is_not_there_ends_nothing(new_service, broadcaster, alice):
    node = new_service()
    share = (await node.create(alice, "ses_1", [part("a")])).id
    subscription = await node.subscribe(alice, share, 1)
    await broadcaster.publish(LogAppended(share, "f" * 16, 1))
    assert await node.sync(alice, share, None, [part("b")]) == 2
    assert (await anext(subscription)).sync_count == 2


@pytest.mark.parametrize("trusted_for", [20.0, 0.0])
async def test_a_store_that_was_put_back_gets_no_gap(new_node, store, alice, caplog, trusted_for):
    """An operator puts a copy of an hour ago in the place of the store of a server that runs."""
    node = new_node(on=store, settings=LogSettings(trusted_for=trusted_for))
    share = (await node.create(alice, "ses_1", [part("a")])).id
    for name in "bc":
        await node.sync(alice, share, None, [part(name)])
    copy = contents(store)
    for name in "de":
        await node.sync(alice, share, None, [part(name)])
    for key in contents(store).keys() - copy.keys():
        await store.delete([key])
    for key, body in copy.items():
        await store.put(key, body)
    assert [part["id"] for part in (await read(node, alice, share))["parts"]] == ["a", "b", "c"]
    assert await node.sync(alice, share, None, [part("f")]) == 4
    cold = await read(new_node(), alice, share)
    assert [part["id"] for part in cold["parts"]] == ["a", "b", "c", "f"]
    assert f"lost entry 5 of the log of share {share}" in caplog.text


async def put_back(store, old):
    """Make the store what it was, without a trace."""
    await store.delete([key for key in contents(store) if key not in old])
    for key, body in old.items():
        if contents(store).get(key) != body:
            await store.put(key, body)


@pytest.mark.parametrize("trusted_for", [20.0, 0.0])
async def test_a_node_notices_that_its_last_entry_is_another_in_a_store_that_was_put_back(
    new_node, store, alice, caplog, trusted_for
):
    node = new_node(on=store, settings=LogSettings(trusted_for=trusted_for))
    share = (await node.create(alice, "ses_1", [part("a")])).id
    before = contents(store)
    await node.sync(alice, share, None, [part("b")])
    with_b = contents(store)
    await put_back(store, before)
    await read(node, alice, share)
    await node.sync(alice, share, None, [part("c")])
    await put_back(store, with_b)
    assert [part["id"] for part in (await read(node, alice, share))["parts"]] == ["a", "b"]
    assert f"another entry 2 of the log of share {share}" in caplog.text


@pytest.mark.parametrize("has_looked", [True, False])
async def test_a_node_notices_that_the_snapshot_of_its_last_entry_is_another_in_a_store_that_was_put_back(
    new_node, store, alice, has_looked
):
    node = new_node(on=store, settings=UNTRUSTING)

    async def compacted():
        async with using(node, share) as log:
            await log._compactor.finish()

    async def has_only_snapshot():
        await compacted()
        await until(lambda: not any("/log/" in key for key in contents(store)))
        return contents(store)

    share = (await node.create(alice, "ses_1", [part("a")])).id
    await node.sync(alice, share, None, [part("b")])
    before = contents(store)
    await compacted()  # or else it may go on over the next entry, which then waits for one more
    await node.sync(alice, share, None, [part("c")])
    with_c = await has_only_snapshot()
    await put_back(store, before)
    await read(node, alice, share)
    await compacted()
    await node.sync(alice, share, None, [part("d")])
    await has_only_snapshot()
    if has_looked:
        await read(node, alice, share)
    await put_back(store, with_c)
    assert [part["id"] for part in (await read(node, alice, share))["parts"]] == ["a", "b", "c"]


async def test_a_node_notices_that_an_entry_is_back_of_which_it_has_read_the_snapshot(new_node, store, alice):
    node = new_node(on=store, settings=LogSettings(compaction=COMPACTING))

    async def compacted():
        async with using(node, share) as log:
            await log._compactor.finish()
        return contents(store)

    share = (await node.create(alice, "ses_1", [part("a")])).id
    await node.sync(alice, share, None, [part("b")])
    before = await compacted()
    await node.sync(alice, share, None, [part("c")])
    with_c = await compacted()
    await put_back(store, before)
    await read(node, alice, share)
    await node.sync(alice, share, None, [part("d")])
    with_d = await compacted()
    assert any(key.endswith("snapshot/000000000003") for key in with_d)
    await store.delete([key for key in with_d if "/log/" in key])
    opened_later = new_node(on=store, alone=True)
    assert [part["id"] for part in (await read(opened_later, alice, share))["parts"]] == ["a", "b", "d"]
    await put_back(store, with_c)
    assert [part["id"] for part in (await read(opened_later, alice, share))["parts"]] == ["a", "b", "c"]


@pytest.mark.parametrize("has_snapshot", [False, True], ids=["of an entry", "of a snapshot"])
async def test_a_node_takes_no_entries_behind_another_of_the_number_in_a_store_that_was_put_back(
    new_node, store, alice, has_snapshot
):
    node = new_node(on=store, settings=LogSettings(compaction=COMPACTING))

    async def compacted():
        async with using(node, share) as log:
            await log._compactor.finish()
        return contents(store)

    share = (await node.create(alice, "ses_1", [part("a")])).id
    await node.sync(alice, share, None, [part("b")])
    before = await compacted()
    for name in "cdef":
        await node.sync(alice, share, None, [part(name)])
        longer = await compacted()
    # Entries up to 3 have been trimmed; those behind snapshot 3 are there, and later snapshots.
    longer = {
        key: body
        for key, body in longer.items()
        if not key.endswith(tuple(f"log/{n:012}" for n in (1, 2, 3)))
    }
    assert {"000000000003", "000000000006"} <= {key[-12:] for key in longer if "/snapshot/" in key}
    await put_back(store, before)
    await read(node, alice, share)
    await node.sync(alice, share, None, [part("other")])
    others = await compacted()
    if has_snapshot:
        await store.delete([key for key in others if "/log/" in key])
        node = new_node(on=store, alone=True)
    assert [part["id"] for part in (await read(node, alice, share))["parts"]] == ["a", "b", "other"]
    await put_back(store, longer)
    assert [part["id"] for part in (await read(node, alice, share))["parts"]] == [
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
    ]


async def test_an_entry_that_was_written_again_as_it_was_is_the_same(new_node, store, alice, caplog):
    node = new_node(on=store)
    share = (await node.create(alice, "ses_1", [part("a")])).id
    subscription = await node.subscribe(alice, share, 1)
    key = next(key for key in contents(store) if "/log/" in key)
    await store.put(key, contents(store)[key])
    await read(node, alice, share)
    assert subscription.take() is None
    assert "has an older copy been put" not in caplog.text


async def test_a_message_is_applied_while_a_write_is_under_way(new_service, store, alice):
    gated = GatedStore(lambda name, key: name == "put" and "/log/" in key, store)
    first, second = new_service(), new_service(gated)
    share = (await first.create(alice, "ses_1")).id
    write = asyncio.create_task(second.sync(alice, share, None, [part("second"), diff("f")]))
    await gated.reached.wait()
    await first.sync(alice, share, None, [part("first"), diff("g")])
    gated.open()
    assert await write == 2
    merged = await read(second, alice, share)
    assert [part["id"] for part in merged["parts"]] == ["first", "second"]
    assert merged == await read(first, alice, share)


async def test_subscribers_on_all_nodes_get_every_sync_once_and_in_order(new_node, alice):
    nodes = [new_node(), new_node()]
    share = (await nodes[0].create(alice, "ses_1")).id
    subscriptions = [await node.subscribe(alice, share, 0) for node in nodes]

    async def follow(subscription):
        seen = 0
        async for event in subscription:
            if event.type == "deleted":
                return seen
            assert event.type == "sync"
            assert event.sync_count == seen + 1
            seen = event.sync_count
        return None

    following = [asyncio.create_task(follow(subscription)) for subscription in subscriptions]
    await asyncio.gather(*(nodes[n % 2].sync(alice, share, None, [part(str(n))]) for n in range(60)))
    await nodes[1].delete(alice, share, None)
    assert await asyncio.gather(*following) == [60, 60]


async def test_a_watched_share_is_followed_though_messages_are_lost(new_node, alice, monkeypatch):
    monkeypatch.setattr("rpcshare.shares.registry._POLL_EVERY", 0.01)
    first, second = new_node(alone=True), new_node(alone=True)
    share = (await first.create(alice, "ses_1")).id
    subscription = await second.subscribe(alice, share, 0)
    await first.sync(alice, share, None, [part("a")])
    assert (await anext(subscription)).sync_count == 1
    await first.delete(alice, share, None)
    assert (await anext(subscription)).type == "deleted"


async def test_a_deleted_share_is_gone_on_every_node(new_node, alice):
    first, second = new_node(alone=True), new_node(alone=True)
    share = (await first.create(alice, "ses_1", [part("a")])).id
    await second.sync(alice, share, None, [part("b")])
    await first.delete(alice, share, None)
    for call in (second.agent_session(alice, share), second.sync(alice, share, None, [])):
        with pytest.raises(ShareError, match="Share not found"):
            await call


@pytest.mark.parametrize("stop", ["delete", "get head", "put head"])
async def test_deletions_on_two_nodes_do_not_hit_the_share_made_anew(new_node, store, alice, stop):
    """A slow deletion that goes on after a quick one is over, and the share is back."""

    def holds(name, key):
        return stop == (f"{name} head" if str(key).endswith("/head") else name)

    gated = GatedStore(holds, store, after=stop == "get head")
    gated.is_armed = False
    slow = new_node(alone=True, on=gated)
    share = (await slow.create(alice, "ses_1", [part("old")])).id
    gated.is_armed = True
    deletion = asyncio.create_task(slow.delete(alice, share, None))
    await gated.reached.wait()
    quick = new_node(alone=True)
    again = await quick.create(alice, "ses_1", [part("new")])
    assert again.id == share
    gated.open()
    await deletion
    for node in (quick, slow, new_node()):
        assert [part["id"] for part in (await read(node, alice, share))["parts"]] == ["new"]
        assert (await node.list_own(alice)).count == 1


async def test_a_share_deleted_while_it_is_opened_is_not_mistaken_for_an_empty_one(new_service, store, alice):
    writer = new_service(settings=LogSettings(grace=0.0))
    share = (await writer.create(alice, "ses_1", [part("old")])).id
    gated = GatedStore(lambda name, key: name == "list" and key.startswith("share/"), store)
    reading = asyncio.create_task(read(new_service(gated, LocalBroadcaster()), alice, share))
    await gated.reached.wait()  # it has read the head
    await writer.delete(alice, share, None)
    await until(lambda: has_deleted(writer))
    await writer.create(alice, "ses_1", [part("new")])
    gated.open()
    with pytest.raises(ShareError, match="Share not found"):
        await reading


async def test_what_is_heard_while_a_share_is_opened_is_not_missed(new_service, store, alice):
    writer = new_service()
    share = (await writer.create(alice, "ses_1", [part("a")])).id
    gated = GatedStore(lambda name, key: name == "scan", store, after=True)
    opening = asyncio.create_task(new_service(gated).subscribe(alice, share, 1))
    await gated.reached.wait()  # it has read the log
    await writer.sync(alice, share, None, [part("b")])
    gated.open()
    assert (await anext(await opening)).sync_count == 2


async def test_what_a_slow_writer_put_where_entries_were_deleted_is_not_read(new_node, store, alice):
    """It finds out by itself; until then it stands below a snapshot, and readers pass it by."""
    asleep = new_node(alone=True, settings=LogSettings(trusted_for=0.0))
    share = (await asleep.create(alice, "ses_1", [part("0")])).id
    at_once = CompactionPolicy(tail_size=0, tail_ratio=0.0, tail_entries=0)
    awake = new_node(alone=True, settings=LogSettings(grace=0.0, compaction=at_once))
    async with using(awake, share) as log:
        for number in range(1, 6):
            await awake.sync(alice, share, None, [part(str(number))])
            await log._compactor.finish()
        await until(lambda: has_deleted(awake))
        stray = objects.encode_entry("stray", [LoggedSync(1, parse_batch([part("stray")]).items)], {})
        await log._journal.append(2, bytes(stray))
    for node in (asleep, awake, new_node()):
        merged = await read(node, alice, share)
        assert [part["id"] for part in merged["parts"]] == list("012345")


class LossyBroadcaster(LocalBroadcaster):
    """Loses messages while ``is_lossy``."""

    is_lossy = False

    async def publish(self, message):
        if not self.is_lossy:
            await super().publish(message)


async def test_a_gap_in_the_messages_is_filled_from_the_store(new_service, alice):
    messages = LossyBroadcaster()
    first, second = new_service(None, messages), new_service(None, messages)
    share = (await first.create(alice, "ses_1")).id
    subscription = await second.subscribe(alice, share, 0)
    messages.is_lossy = True
    await first.sync(alice, share, None, [part("lost")])
    messages.is_lossy = False
    await first.sync(alice, share, None, [part("heard")])
    assert [(await anext(subscription)).sync_count for _ in range(2)] == [1, 2]


async def test_a_message_about_an_entry_that_is_not_there_is_followed_up_once(new_service, store, alice):
    messages = LocalBroadcaster()
    service = new_service(None, messages)
    share = (await service.create(alice, "ses_1", [part("a")])).id
    async with using(service, share) as log:
        message = LogAppended(share, log.head.generation, 99)
        await messages.publish(message)
        await until(lambda: not log.is_busy)
    assert await service.sync(alice, share, None, [part("b")]) == 2


async def test_a_message_about_the_share_made_anew_tells_that_the_old_one_is_gone(new_service, alice):
    messages = LossyBroadcaster()
    first, second = new_service(None, messages), new_service(None, messages)
    share = (await first.create(alice, "ses_1", [part("old")])).id
    subscription = await second.subscribe(alice, share, 1)
    messages.is_lossy = True
    await first.delete(alice, share, None)
    messages.is_lossy = False
    await first.create(alice, "ses_1", [part("new")])
    assert (await anext(subscription)).type == "deleted"
    assert [part["id"] for part in (await read(second, alice, share))["parts"]] == ["new"]


async def test_a_node_follows_a_share_that_was_made_anew(new_node, alice):
    first, second = new_node(alone=True), new_node(alone=True)
    share = (await first.create(alice, "ses_1", [part("old")])).id
    await read(second, alice, share)
    await first.delete(alice, share, None)
    await first.create(alice, "ses_1", [part("new")])
    with pytest.raises(ShareError, match="Share not found"):
        await second.sync(alice, share, None, [part("x")])
    assert await second.sync(alice, share, None, [part("y")]) == 2


async def test_one_share_is_made_by_callers_that_create_at_once(new_node, alice):
    nodes = [new_node(alone=True) for _ in range(4)]
    made = await asyncio.gather(
        *(nodes[n % 4].create(alice, "ses_12345678", [part(str(n))]) for n in range(12))
    )
    assert len({(each.id, each.secret) for each in made}) == 1
    assert len((await read(nodes[0], alice, made[0].id))["parts"]) == 12


async def test_different_callers_that_create_at_once_get_shares_of_their_own(
    new_node, alice, bob, admin, anonymous
):
    nodes = [new_node(alone=True, anonymous_create=True) for _ in range(4)]
    callers = [alice, bob, admin, anonymous, anonymous]
    made = await asyncio.gather(
        *(nodes[n % 4].create(caller, "ses_12345678") for n, caller in enumerate(callers))
    )
    assert len({each.id for each in made}) == 5
    assert len({each.secret for each in made}) == 5


async def test_a_reader_of_a_failing_store_is_told_so(new_node, store, alice):
    is_down = False
    node = new_node(on=FailingStore(lambda *_: is_down, store))
    share = (await node.create(alice, "ses_1", [part("a")])).id
    is_down = True
    with pytest.raises(ShareError, match="Storage unavailable"):
        await node.agent_session(alice, share)
    is_down = False
    assert len((await read(node, alice, share))["parts"]) == 1


async def test_a_share_that_was_made_anew_elsewhere_is_read_at_once(new_node, alice):
    first, second = new_node(alone=True), new_node(alone=True)
    share = (await first.create(alice, "ses_1", [part("old")])).id
    await read(second, alice, share)
    await first.delete(alice, share, None)
    await first.create(alice, "ses_1", [part("new")])
    assert [each["id"] for each in (await read(second, alice, share))["parts"]] == ["new"]


@pytest.mark.parametrize("trusted_for", [20.0, 0.0])
async def test_what_a_share_is_made_anew_with_is_not_written_to_the_one_that_was_deleted_elsewhere(
    new_node, store, alice, trusted_for
):
    settings = LogSettings(trusted_for=trusted_for)
    first, second = (new_node(alone=True, settings=settings) for _ in range(2))
    share = (await first.create(alice, "ses_1", [part("a")])).id
    await first.sync(alice, share, None, [part("b")])
    await second.sync(alice, share, None, [part("c")])
    await first.sync(alice, share, None, [part("d")])
    await first.delete(alice, share, None)
    await second.create(alice, "ses_1", [part("new")])
    for node in (first, second):
        assert [each["id"] for each in (await read(node, alice, share))["parts"]] == ["new"]


@pytest.mark.parametrize("trusted_for", [20.0, 0.0])
@pytest.mark.parametrize("is_atomic", [False, True], ids=["step by step", "in one transaction"])
async def test_no_sync_is_acknowledged_of_a_share_that_was_deleted_elsewhere(
    new_node, store, alice, tmp_path, trusted_for, is_atomic
):
    on = await SqliteStore.open(tmp_path / "shares.sqlite3") if is_atomic else store
    settings = LogSettings(trusted_for=trusted_for)
    first, second = (new_node(alone=True, settings=settings, on=on) for _ in range(2))
    share = (await first.create(alice, "ses_1", [part("a")])).id
    await second.sync(alice, share, None, [part("b")])
    for name in "cde":
        await first.sync(alice, share, None, [part(name)])
    await first.delete(alice, share, None)
    await first.create(alice, "ses_1", [part("new")])
    with pytest.raises(ShareError, match="Share not found"):
        await second.sync(alice, share, None, [part("f")])
    assert await second.sync(alice, share, None, [part("g")]) == 2
    assert [each["id"] for each in (await read(first, alice, share))["parts"]] == ["new", "g"]
    await first.close()
    await second.close()
    await on.close()


async def test_nothing_is_left_of_what_a_deleted_share_held(new_node, store, alice):
    node = new_node(settings=LogSettings(grace=0.05))
    share = (await node.create(alice, "ses_1", [part("secret")])).id
    for number in range(3):
        await node.sync(alice, share, None, [part(f"secret{number}")])
    await node.delete(alice, share, None)
    assert not any(b"secret" in objects.unpack(body) for body in contents(store).values())
    await until(lambda: not any("/log/" in key for key in contents(store)))


async def test_a_share_that_was_made_anew_elsewhere_is_what_is_deleted(new_node, alice):
    first, second = new_node(alone=True), new_node(alone=True)
    share = (await first.create(alice, "ses_1", [part("old")])).id
    await read(second, alice, share)
    await first.delete(alice, share, None)
    await first.create(alice, "ses_1", [part("new")])
    await second.delete(alice, share, None)
    with pytest.raises(ShareError, match="Share not found"):
        await read(first, alice, share)


async def test_what_a_snapshot_has_replaced_stays_if_the_store_is_put_back_to_before_it(
    new_node, store, alice
):
    settings = LogSettings(compaction=COMPACTING, grace=0.2)
    node = new_node(settings=settings)
    share = (await node.create(alice, "ses_1")).id
    await node.sync(alice, share, None, [part("0")])
    old = contents(store)
    for number in range(1, 6):
        await node.sync(alice, share, None, [part(str(number))])
    await until(lambda: any("/snapshot/" in key for key in contents(store)))
    async with using(node, share) as log:
        await until(lambda: not log._compactor.is_running)
    await store.delete([key for key in contents(store) if key not in old])
    for key, body in old.items():
        await store.put(key, body)
    delayed_deletes = node._shares._delayed_deletes
    await until(lambda: not (delayed_deletes._waiting or delayed_deletes._running))
    assert [each["id"] for each in (await read(new_node(alone=True), alice, share))["parts"]] == ["0"]

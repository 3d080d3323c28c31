"""Whatever is synced, compacted and reopened, in whatever order, makes what the plain merge makes."""

import asyncio
import json
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpcshare.auth.caller import Caller, Scope
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.shares import Credentials, LogSettings, ShareService
from rpcshare.shares.compaction import CompactionPolicy
from support.plain_merge import PlainShare, assert_same
from support.share_stores import YieldingStore

ALICE = Caller("alice", frozenset({Scope.CREATE}))
CREDENTIALS = Credentials(uuid.UUID(int=1), "https://share.example")

ids = st.sampled_from(["a", "b", "c", "é", "\ud83d"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**60) | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
keyed = st.fixed_dictionaries({"id": ids, "value": values})
diffs = st.sampled_from([{"file": "a"}, {"file": "b"}, {"file": "\ud83d"}, "x" * 2000, 5]) | values
models = st.fixed_dictionaries({"id": ids}, optional={"providerID": ids | st.none(), "x": values})


def items(kind, data):
    return st.fixed_dictionaries({"type": st.just(kind), "data": data})


batches = st.lists(
    items("session", st.dictionaries(st.sampled_from(["title", "id"]), values))
    | items("message", keyed)
    | items("part", keyed)
    | items("session_diff", st.lists(diffs, max_size=4))
    | items("model", st.lists(models, max_size=3)),
    max_size=5,
)
# A reopening says after how many entries the next snapshots are made.
steps = st.lists(
    st.tuples(st.just("sync"), batches)
    | st.tuples(st.just("syncs at once"), st.lists(batches, min_size=2, max_size=4))
    | st.tuples(st.just("reopen"), st.sampled_from([0, 1, 3, 1000])),
    max_size=12,
)


def opened(store, entries):
    policy = CompactionPolicy(tail_size=0 if entries == 0 else 2**20, tail_ratio=0, tail_entries=entries)
    return ShareService(
        store, LocalBroadcaster(), CREDENTIALS, settings=LogSettings(compaction=policy, grace=0)
    )


async def run(steps):
    store, plain = YieldingStore(), PlainShare()  # in the background of which trimming goes on
    service = opened(store, 1000)
    share = (await service.create(ALICE, "ses_1")).id
    for step, value in steps:
        if step == "sync":
            await service.sync(ALICE, share, None, value)
            plain.sync(value)
        elif step == "syncs at once":
            await asyncio.gather(*(service.sync(ALICE, share, None, batch) for batch in value))
            for batch in value:
                plain.sync(batch)
        else:
            await service.close()
            service = opened(store, value)
        assert_same(await service.agent_session(ALICE, share), plain)
    await service.close()
    service = opened(store, 1000)
    assert_same(await service.agent_session(ALICE, share), plain)
    if plain.session is not None:
        assert json.loads(await service.sync_data(ALICE, share)) == plain.sync_data()
    await service.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
@pytest.mark.slow
def test_any_history_makes_what_the_plain_merge_makes(steps):
    asyncio.run(run(steps))

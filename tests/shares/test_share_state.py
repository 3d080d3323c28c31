import json
import tracemalloc

from rpcshare.shares.content import Content
from rpcshare.shares.state import ShareState
from rpcshare.shares.syncdata import parse_batch
from support.items import part
from support.plain_merge import PlainShare, assert_same


def share_of(*batches):
    state = ShareState("abcdefgh", "ses_abcdefgh", 1000)
    for at, batch in enumerate(batches, start=1001):
        state.apply(parse_batch(batch).items, at)
    return state


def diffs(*files):
    return {"type": "session_diff", "data": [{"file": file} for file in files]}


def test_a_new_share_has_a_session_that_says_nothing():
    assert json.loads(share_of().agent_session()) == {
        "session": {
            "id": "ses_abcdefgh",
            "slug": "ses_abcdefgh",
            "projectID": "",
            "directory": "",
            "title": "",
            "version": "1",
            "time": {"created": 1000, "updated": 1000},
        },
        "messages": [],
        "parts": [],
        "diffs": [],
        "models": [],
        "metadata": {
            "createdAt": 1000,
            "lastUpdated": 1000,
            "syncCount": 0,
            "sessionID": "ses_abcdefgh",
        },
    }


def test_a_session_is_replaced():
    state = share_of(
        [{"type": "session", "data": {"id": "s", "old": 1}}],
        [{"type": "session", "data": {"id": "s", "new": 2}}],
    )
    assert json.loads(state.agent_session())["session"] == {"id": "s", "new": 2}


def test_a_part_is_replaced_where_it_was_first_seen():
    state = share_of([part("a"), part("b")], [part("a", "new"), part("c")])
    assert json.loads(state.agent_session())["parts"] == [
        {"id": "a", "text": "new"},
        {"id": "b", "text": ""},
        {"id": "c", "text": ""},
    ]


def test_messages_and_parts_of_one_id_are_different_items():
    state = share_of([part("a"), {"type": "message", "data": {"id": "a"}}])
    merged = json.loads(state.agent_session())
    assert (len(merged["messages"]), len(merged["parts"])) == (1, 1)


def test_every_diff_is_kept_in_order_and_equal_ones_again():
    state = share_of([diffs("a", "b")], [diffs("b", "a", "a")])
    merged = json.loads(state.agent_session())["diffs"]
    assert [diff["file"] for diff in merged] == ["a", "b", "b", "a", "a"]


def test_a_diff_that_comes_again_takes_only_the_room_of_a_number():
    big = {"type": "session_diff", "data": [{"before": "x" * 10_000}]}
    state = share_of([big])
    size = state.content.size
    state.apply(parse_batch([big]).items, 2000)
    assert state.content.size == size + 4


def test_the_recording_merges_as_the_plain_merge_does(recorded_requests):
    plain, state = PlainShare(), share_of()
    for request in recorded_requests:
        if "data" in request["body"]:
            plain.sync(request["body"]["data"])
            state.apply(parse_batch(request["body"]["data"]).items, 2000)
    assert_same(state.agent_session(), plain)
    assert json.loads(state.sync_data()) == plain.sync_data()


def test_sync_data_lists_session_messages_parts_diffs_models():
    state = share_of(
        [{"type": "model", "data": [{"id": "m"}, {"id": "n"}]}, diffs("f", "g"), part("p")],
        [{"type": "message", "data": {"id": "x"}}, {"type": "message", "data": {"id": "y"}}],
    )
    kinds = [item["type"] for item in json.loads(state.sync_data())]
    assert kinds == ["session", "message", "message", "part", "session_diff", "model"]


def test_what_items_describes_is_the_same_share_again():
    state = share_of([part("a"), diffs("f", "g", "f")], [{"type": "model", "data": [{"id": "m"}]}])
    again = ShareState("abcdefgh", "ses_abcdefgh", 1000)
    again.restore(state.content.items(), state.sync_count, state.last_updated)
    assert again.agent_session() == state.agent_session()
    assert again.content.size == state.content.size


def test_size_is_that_of_keys_bodies_and_diff_numbers():
    state = share_of(
        [
            part("a", "long"),
            part("b"),
            part("a", "longer"),
            {"type": "session", "data": {"id": "s"}},
            diffs("f"),
        ],
        [part("a", "x"), {"type": "session", "data": {}}, diffs("f", "g")],
    )
    content = state.content
    bodies = [body for _, body in content.parts.values()]
    texts = [*content.parts, *bodies, content.session, *content.diffs.distinct]
    assert content.size == sum(map(len, texts)) + 4 * len(content.diffs)


def test_a_diff_that_comes_again_counts_in_full_towards_what_readers_are_shown():
    state = share_of([part("a"), diffs("f")])
    size, expanded = state.content.size, state.content.expanded_size
    state.apply(parse_batch([diffs("f", "f")]).items, 2000)
    assert state.content.size == size + 2 * 4
    assert state.content.expanded_size == expanded + 2 * (4 + len(b'{"file":"f"}'))


def test_items_are_counted_with_repeats_and_without_what_is_replaced():
    state = share_of(
        [part("a"), part("a"), part("b"), diffs("f", "f"), {"type": "model", "data": [{"id": "m"}]}]
    )
    assert state.content.count == 5


def test_growth_is_never_less_than_what_applying_adds():
    content = Content()
    for batch in (
        [part("a", "x" * 50), part("b")],
        [part("a", "x"), part("b", "xx")],
        [{"type": "session", "data": {"title": "t"}}, diffs("f", "f", "g")],
        [{"type": "session", "data": {}}, diffs("g")],
    ):
        items = parse_batch(batch).items
        size, count, growth = content.expanded_size, content.count, content.growth(items)
        content.apply(items)
        assert content.expanded_size - size <= growth.size
        assert content.count - count <= growth.items


def test_the_index_counts_and_names():
    state = share_of(
        [
            {"type": "session", "data": {"title": "Hello", "directory": "/tmp", "id": "s"}},
            part("a"),
            part("b"),
            diffs("f", "f", "f"),
        ]
    )
    index = state.index()
    assert (index.title, index.directory, index.sync_count) == ("Hello", "/tmp", 1)
    assert (index.part_count, index.diff_count, index.message_count) == (2, 3, 0)
    assert (index.created_at, index.last_updated) == (1000, 1001)


def test_a_title_that_is_no_text_is_empty_in_the_index():
    index = share_of([{"type": "session", "data": {"title": 5, "directory": None}}]).index()
    assert (index.title, index.directory) == ("", "")


def test_a_title_cut_within_a_character_can_be_listed():
    index = share_of([{"type": "session", "data": {"title": "cut \ud83d"}}]).index()
    assert index.title == "cut \ufffd"


def test_a_sync_costs_what_it_carries():
    state = share_of([part(f"prt_{number}", "x" * 50) for number in range(20_000)])
    items = parse_batch([part("prt_7", "y" * 50)]).items
    tracemalloc.start()
    try:
        state.apply(items, 2000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000

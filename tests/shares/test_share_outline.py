"""The order of messages and parts, kept up to date sync by sync."""

from collections.abc import Iterable, Sequence

from rpcshare.shares.outline import Entry, Outline
from rpcshare.shares.state import ShareState
from rpcshare.shares.syncdata import parse_batch


def message(message_id: str, **fields: object) -> dict[str, object]:
    return {"type": "message", "data": {"id": message_id, "role": "user", **fields}}


def part(part_id: str, message_id: object, **fields: object) -> dict[str, object]:
    return {"type": "part", "data": {"id": part_id, "messageID": message_id, **fields}}


def diff(file: object, patch: str) -> dict[str, object]:
    return {"type": "session_diff", "data": [{"file": file, "patch": patch}]}


def outline_of(*syncs: Sequence[object]) -> Outline:
    outline = Outline((), 0)
    for number, sync in enumerate(syncs, 1):
        outline.apply(parse_batch(sync).items, number)
    return outline


def order(entries: Iterable[Entry]) -> list[tuple[str, list[str]]]:
    return [(entry.id, [part.id for part in entry.parts]) for entry in entries]


def test_messages_are_in_the_order_in_which_they_were_made_though_the_newest_came_first() -> None:
    newest_first = [message(f"m{n}", time={"created": 1_700_000_000_000 + n}) for n in reversed(range(5))]
    outline = outline_of(newest_first, [message("m9", time={"created": 1_700_000_000_009})])
    assert [entry.id for entry in outline.entries] == ["m0", "m1", "m2", "m3", "m4", "m9"]


def test_messages_that_do_not_say_when_stay_behind_the_one_before() -> None:
    outline = outline_of(
        [message("b", time={"created": 2}), message("x"), message("y", time={"created": "soon"})],
        [message("a", time={"created": 1}), message("z")],
    )
    assert [entry.id for entry in outline.entries] == ["a", "z", "b", "x", "y"]


def test_parts_are_grouped_under_their_messages_in_first_seen_order() -> None:
    outline = outline_of(
        [message("m1"), message("m2"), part("p1", "m2"), part("p2", "m1")],
        [part("p3", "m2"), part("p1", "m2", text="newer")],
    )
    assert order(outline.entries) == [("m1", ["p2"]), ("m2", ["p1", "p3"])]
    assert b"newer" in outline.entries[1].parts[0].body


def test_a_part_may_come_before_its_message() -> None:
    outline = outline_of([part("p1", "m2"), message("m1")])
    assert order(outline.entries) == [("m1", []), ("m2", ["p1"])]
    assert outline.entries[1].body is None

    outline.apply(parse_batch([message("m2")]).items, 2)
    assert order(outline.entries) == [("m1", []), ("m2", ["p1"])]
    assert outline.entries[1].body is not None


def test_a_part_moves_when_its_message_changes() -> None:
    outline = outline_of([message("m1"), message("m2"), part("p1", "m1")], [part("p1", "m2")])
    assert order(outline.entries) == [("m1", []), ("m2", ["p1"])]


def test_a_part_of_no_message_is_kept() -> None:
    outline = outline_of([message("m1"), part("p1", 7), part("p2", None)])
    assert order(outline.entries) == [("m1", []), ("", ["p1", "p2"])]


def test_what_has_not_changed_is_the_same_object() -> None:
    outline = outline_of([message("m1"), message("m2"), part("p1", "m1"), part("p2", "m2")])
    before = outline.entries
    outline.apply(parse_batch([part("p2", "m2", text="newer")]).items, 2)
    after = outline.entries
    assert after[0] is before[0]
    assert after[1] is not before[1]


def test_every_version_says_by_which_sync_it_came() -> None:
    outline = outline_of(
        [message("m1"), part("p1", "m1"), part("p2", "m1")], [part("p2", "m1", text="newer")]
    )
    entry = outline.entries[0]
    assert (entry.body_since, entry.since) == (1, 2)
    assert [each.since for each in entry.parts] == [1, 2]


def test_half_a_surrogate_pair_anywhere_hides_nothing() -> None:
    outline = outline_of([message("m1"), part("p1", "m1", text="\ud83d"), diff("a.py", "\udc00")])
    assert order(outline.entries) == [("m1", ["p1"])]
    assert len(outline.files) == 1


def test_the_newest_diff_of_each_file_counts_even_if_it_was_there_before() -> None:
    outline = outline_of([diff("a", "one"), diff("b", "x")], [diff("a", "two")], [diff("a", "one")])
    assert [file.body for file in outline.files] == [
        b'{"file":"a","patch":"one"}',
        b'{"file":"b","patch":"x"}',
    ]


def test_diffs_without_a_name_are_all_kept() -> None:
    outline = outline_of([diff(None, "one"), diff(None, "two"), diff(3, "three")])
    assert len(outline.files) == 3


def test_an_outline_of_a_state_follows_its_syncs() -> None:
    state = ShareState("share", "ses_share", 0)
    state.apply(parse_batch([message("m1")]).items, 1)
    assert state.outline.known_since == 1
    state.apply(parse_batch([part("p1", "m1")]).items, 2)
    assert order(state.outline.entries) == [("m1", ["p1"])]
    state.restore(parse_batch([message("m9")]).items, 7, 3)
    assert order(state.outline.entries) == [("m9", [])]
    assert state.outline.known_since == 7

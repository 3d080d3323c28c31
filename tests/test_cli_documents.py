"""A share as a file: what is read from it, how it is cut into syncs, and what is said of its faults."""

import json
from collections.abc import Sequence

import pytest

from rpcshare.cli.documents import SizedItem, read_items
from rpcshare.cli.push import BATCH_BYTES, BATCH_ITEMS, split_into_batches
from rpcshare.transcripts import SessionFileError, sync_data_of_agent_session

SESSION = {"type": "session", "data": {"id": "ses_1"}}
MESSAGE = {"type": "message", "data": {"id": "msg_1"}}
PART = {"type": "part", "data": {"id": "prt_1"}}
DIFF = {"type": "session_diff", "data": [{"file": "a.py"}, "whatever"]}
MODEL = {"type": "model", "data": [{"id": "m", "providerID": "p"}]}
ITEMS = [SESSION, MESSAGE, PART, DIFF, MODEL]

AGENT_SESSION = {
    "session": SESSION["data"],
    "messages": [MESSAGE["data"]],
    "parts": [PART["data"]],
    "diffs": DIFF["data"],
    "models": MODEL["data"],
    "metadata": {"syncCount": 7},
}


def lines_of(items: Sequence[object]) -> str:
    return "".join(f"{json.dumps(item)}\n" for item in items)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ITEMS),
        json.dumps(ITEMS, indent=2),
        lines_of(ITEMS),
        lines_of(ITEMS).replace("\n", "\r\n\n"),
        json.dumps(AGENT_SESSION),
        json.dumps(AGENT_SESSION, indent=2),
        "\ufeff" + json.dumps(ITEMS),
    ],
    ids=["list", "indented", "lines", "lines apart", "session", "indented session", "byte order mark"],
)
def test_every_form_reads_as_the_same_items(text):
    assert [sized.item for sized in read_items(text.encode())] == ITEMS


def test_an_agent_session_is_made_of_the_items_that_make_it():
    assert sync_data_of_agent_session(AGENT_SESSION) == ITEMS


def test_an_agent_session_may_lack_everything_but_the_session():
    (sized,) = read_items(json.dumps({"session": {}}).encode())
    assert sized.item == {"type": "session", "data": {}}


def test_an_item_s_sizes_are_those_of_its_values():
    message, model = read_items(json.dumps([MESSAGE, {"type": "session_diff", "data": ["four", 1]}]).encode())
    assert message.sizes == (len('"msg_1"{"id":"msg_1"}'),)
    assert model.sizes == (len('"four"'), len("1"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("7", "seems to be a single JSON value; taken are SyncData"),
        ('{"a": 1}', "seems to be a JSON object with a; taken are SyncData"),
        ("[1,\n2,\n", "line 3: not JSON: Expecting value"),
        ('{"session": {\n"id": "x"\n"title"}}', "line 3: not JSON: Expecting ',' delimiter"),
        ("[NaN]", "line 1: not JSON"),
        (b'[\n"\xff"]', "line 2: not UTF-8"),
        (lines_of([MESSAGE]) + '\n{"type": \n', "line 3: not JSON: Expecting value"),
        (lines_of([MESSAGE]).encode() + b'{"\xff"}', "line 2: not UTF-8"),
        (lines_of([MESSAGE, {"type": "part", "data": {}}]), "line 2.data.id: must be a string"),
        (lines_of([MESSAGE]) + "[]", "line 2: must be an object"),
        (json.dumps([MESSAGE, 7]), "item 1: must be an object"),
        (json.dumps([MESSAGE, {"type": "other"}]), "item 1.type: must be one of session, message"),
        (json.dumps([MODEL, {"type": "model", "data": [{}]}]), "item 1.data[0].id: must be a string"),
        (json.dumps({"session": 7}), "session.data: must be an object"),
        (json.dumps({"session": {}, "parts": {}}), "parts: must be a list"),
        (json.dumps({"session": {}, "messages": [{"id": "m"}, {}]}), "messages[1].data.id: must be a string"),
    ],
)
def test_a_fault_is_named_with_its_place(content, told):
    with pytest.raises(SessionFileError) as caught:
        read_items(content if isinstance(content, bytes) else content.encode())
    assert str(caught.value).startswith(told)


# --- batches --------------------------------------------------------------------------------------


def sized(name: str, *sizes: int) -> SizedItem:
    return SizedItem({"type": name, "data": [f"{name}{n}" for n in range(len(sizes))]}, sizes)


def test_a_batch_has_so_many_items_at_most():
    batches = list(split_into_batches([sized("a", 1)] * (BATCH_ITEMS + 1)))
    assert [len(batch.items) for batch in batches] == [BATCH_ITEMS, 1]


def test_a_batch_has_so_many_bytes_at_most():
    half = sized("a", BATCH_BYTES // 2)
    batches = list(split_into_batches([half, half, sized("b", 1)]))
    assert [batch.size for batch in batches] == [BATCH_BYTES, 1]


def test_an_item_that_is_too_large_for_a_batch_has_its_own():
    large = sized("large", BATCH_BYTES + 1)
    batches = list(split_into_batches([sized("a", 1), large, sized("b", 1)]))
    assert [batch.size for batch in batches] == [1, BATCH_BYTES + 1, 1]


def test_a_list_that_is_too_large_for_a_batch_is_cut_between_its_values():
    third = BATCH_BYTES // 3
    batches = list(split_into_batches([sized("a", *[third] * 5, BATCH_BYTES + 1, 1)]))
    data = [item["data"] for batch in batches for item in batch.items]
    assert data == [["a0", "a1", "a2"], ["a3", "a4"], ["a5"], ["a6"]]
    assert [batch.size for batch in batches] == [3 * third, 2 * third, BATCH_BYTES + 1, 1]

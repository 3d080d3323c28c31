"""Large batches and shares are dealt with in time slices, and become what they would at once."""

import asyncio
import json
import random

import pytest

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.jsontext import JSONText
from rpcshare.shares.document import Form
from rpcshare.shares.parsing import BatchParser, is_large
from rpcshare.shares.syncdata import json_pieces, json_size, text_parts

MANY = 20_000


def parts(count, value=0):
    return [{"type": "part", "data": {"id": f"p{number}", "v": value}} for number in range(count)]


def encoded(data):
    return JSONText(json.dumps(data).encode())


async def turns_during(work):
    """Return how often the event loop came round while something was awaited, and what that returned."""
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    before = turns
    result = await work
    after = turns
    counting.cancel()
    return after - before, result


def mixed(seed):
    """Return a batch in which kinds follow each other in any order."""
    rng = random.Random(seed)
    kinds = {
        "part": lambda: {"id": f"p{rng.randrange(500)}", "key": rng.choice(["x", "sk-" + "a1B2c3D4" * 6])},
        "message": lambda: {"id": f"m{rng.randrange(500)}"},
        "session": lambda: {"title": str(rng.random())},
        "session_diff": lambda: [{"file": str(rng.randrange(9))} for _ in range(rng.randrange(4))],
        "model": lambda: [{"id": str(rng.randrange(9))}],
    }
    batch: list[dict] = []
    while len(batch) < 1500:
        kind = rng.choice(list(kinds))
        batch += [{"type": kind, "data": kinds[kind]()} for _ in range(rng.choice([1, 1, 2, 150]))]
    return batch


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("form", [list, encoded])
async def test_a_batch_in_time_slices_is_what_it_is_at_once(seed, form):
    parser = BatchParser(max_size=0, max_items=0, redact=True)
    batch = mixed(seed)
    assert is_large(form(batch))
    assert await parser.parse_in_slices(form(batch)) == parser.parse(batch)


@pytest.mark.parametrize("at", [0, 700, 1999])
async def test_what_is_wrong_is_told_with_its_place(at):
    parser = BatchParser(max_size=0, max_items=0, redact=True)
    batch = parts(2000)
    batch[at] = {"type": "part", "data": {"id": 5}}
    with pytest.raises(ShareError, match=rf"data\[{at}\].data.id: must be a string") as caught:
        await parser.parse_in_slices(encoded(batch))
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def diffs(count, at=-1, odd=None):
    return [odd if number == at else {"file": f"f{number}", "n": [number]} for number in range(count)]


@pytest.mark.parametrize("kind", ["session_diff", "model"])
async def test_a_long_list_within_an_element_is_what_it_is_at_once(kind):
    parser = BatchParser(max_size=0, max_items=0, redact=True)
    values = [{"id": f"m{number}", **diff} for number, diff in enumerate(diffs(30_000))]
    values.insert(9, {"id": "long", "text": "x" * 300_000})
    batch = [{"type": kind, "data": each} for each in ([], values, values[:2])]
    assert await parser.parse_in_slices(encoded(batch)) == parser.parse(batch)


async def test_what_is_wrong_in_a_long_list_is_told_with_its_place():
    parser = BatchParser(max_size=0, max_items=0, redact=True)
    models = [{"id": f"m{number}", "n": "x" * 20} for number in range(20_000)]
    del models[15_000]["id"]
    batch = [*parts(1), {"type": "model", "data": models}]
    with pytest.raises(ShareError, match=r"^data\[1\].data\[15000\].id: must be a string"):
        await parser.parse_in_slices(encoded(batch))


LONG = {f"k{number:06}": number for number in range(100_001)}


@pytest.mark.parametrize(
    ("batch", "place"),
    [
        ([*parts(3), {"type": "part", "data": {"id": "p", **LONG}}], "data[3]"),
        ([{"type": "message", "data": {"id": "m", "deep": [[0] * 60_000, ["x" * 9] * 60_000]}}], "data[0]"),
        ([*parts(1), {"type": "session_diff", "data": [0, 0, LONG]}], "data[1].data[2]"),
    ],
    ids=["keys", "lists", "a diff"],
)
async def test_one_item_of_too_many_values_is_refused_before_it_is_decoded(batch, place):
    parser = BatchParser(max_size=0, max_items=0, redact=True)
    with pytest.raises(ShareError) as caught:
        await parser.parse_in_slices(encoded(batch))
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert caught.value.message == f"{place}: holds more than 100,000 values"


async def test_what_looks_like_values_in_a_long_text_is_none():
    parser = BatchParser(max_size=0, max_items=0, redact=True)
    text = 'a "list": [{1,2},' * 60_000
    batch = [{"type": "part", "data": {"id": "p", "text": text}}]
    assert await parser.parse_in_slices(encoded(batch)) == parser.parse(batch)


async def test_half_a_surrogate_pair_is_kept_in_a_large_batch():
    parser = BatchParser(max_size=0, max_items=0, redact=True)
    batch = [*parts(2000), {"type": "part", "data": {"id": "cut", "text": "\ud83d"}}]
    assert b"\\ud83d" in (await parser.parse_in_slices(encoded(batch))).items[0].values[-1][1]


@pytest.mark.parametrize("limit", [{"max_items": 1999}, {"max_size": 10_000}])
async def test_a_batch_past_a_limit_is_refused(limit):
    parser = BatchParser(**{"max_size": 0, "max_items": 0, "redact": True, **limit})
    with pytest.raises(ShareError) as caught:
        await parser.parse_in_slices(encoded(parts(2000)))
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE


async def test_the_event_loop_goes_on_while_a_large_batch_is_taken_in(service, alice):
    share = (await service.create(alice, "ses_large")).id
    turns, count = await turns_during(service.sync(alice, share, None, encoded(parts(MANY))))
    assert count == 1
    assert turns >= 10


async def test_the_event_loop_goes_on_while_an_outline_is_made(service, alice):
    # As many as take a fast machine some slices of time, too.
    count = 4 * MANY
    share = (await service.create(alice, "ses_large")).id
    await service.sync(alice, share, None, encoded(parts(count)))
    turns, transcript = await turns_during(service.transcript(alice, share))
    assert sum(len(entry.parts) for entry in transcript.entries) == count
    assert turns >= 5


async def test_an_outline_has_what_was_synced_while_it_was_made(service, alice):
    share = (await service.create(alice, "ses_large")).id
    await service.sync(alice, share, None, encoded(parts(MANY)))
    making = asyncio.create_task(service.transcript(alice, share))
    for value in range(1, 4):
        await service.sync(alice, share, None, parts(3, value))
    await making
    entries = (await service.transcript(alice, share)).entries
    assert [json.loads(part.body)["v"] for part in entries[0].parts[:4]] == [3, 3, 3, 0]


async def test_a_small_sync_does_not_overtake_a_large_one(service, alice):
    share = (await service.create(alice, "ses_large")).id
    large = asyncio.create_task(service.sync(alice, share, None, encoded(parts(MANY, 1))))
    await asyncio.sleep(0)
    small = [asyncio.create_task(service.sync(alice, share, None, parts(1, value))) for value in (2, 3)]
    assert await asyncio.gather(large, *small) == [1, 2, 3]
    session = json.loads(await service.agent_session(alice, share))
    assert [part["v"] for part in session["parts"][:2]] == [3, 1]


@pytest.mark.parametrize("form", [Form.AGENT_SESSION, Form.SYNC_DATA])
async def test_the_parts_of_a_document_are_its_text(service, alice, form):
    batch = [*mixed(1), *parts(MANY), {"type": "part", "data": {"id": "long", "text": "é" * 200_000}}]
    share = (await service.create(alice, "ses_large", batch)).id
    document = await service.document(alice, share, form)
    texts = list(document.parts())
    assert b"".join(texts) == document.body
    assert sum(map(len, texts)) == document.size
    assert max(map(len, texts)) <= 128 * 1024
    if form is Form.AGENT_SESSION:
        assert whole(document.text_in_parts()) == json.loads(document.body)


def whole(text):
    """Return the value that a text in parts stands for."""
    if isinstance(text, dict):
        return {name: whole(each) for name, each in text.items()}
    return json.loads(text) if isinstance(text, bytes) else [whole(each) for each in text]


def test_no_part_of_a_text_begins_within_a_character():
    pieces = ["é".encode() * 7, "x€".encode() * 40, b"", b"y" * 3]
    texts = list(text_parts(pieces, size=8))
    assert b"".join(texts) == b"".join(pieces)
    assert all(text.decode() and len(text) <= 16 for text in texts)


@pytest.mark.parametrize("seed", range(3))
def test_the_size_of_json_is_known_before_it_is_made(seed):
    items = BatchParser(max_size=0, max_items=0, redact=False).parse(mixed(seed)).items
    assert json_size(items) == sum(map(len, json_pieces(items)))
    assert json_size(()) == 2

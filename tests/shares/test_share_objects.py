import json
import random
import re

import msgspec
import pytest

from rpcshare.shares import objects
from rpcshare.shares.access import Visibility
from rpcshare.shares.content import Content
from rpcshare.shares.objects import Head, IndexRow, LoggedSync, LogSnapshot
from rpcshare.shares.share_identity import SecretKind
from rpcshare.shares.state import ShareState
from rpcshare.shares.syncdata import parse_batch
from rpcshare.storage import StoreError
from support.items import part


def items(*batch):
    return parse_batch(list(batch)).items


def diffs(*bodies):
    return {"type": "session_diff", "data": list(bodies)}


def logged(syncs, content=None):
    """Return ``syncs`` as they come back from an entry written to a share of ``content``."""
    content = content or Content()
    body = objects.encode_entry("id", syncs, content.diffs.numbers)
    return objects.decode_entry(objects.pack(body)).syncs(content.diffs.distinct)


def test_an_entry_gives_back_its_syncs(recorded_requests):
    batches = [r["body"]["data"] for r in recorded_requests if "data" in r["body"]]
    syncs = [LoggedSync(at, parse_batch(batch).items) for at, batch in enumerate(batches)]
    assert logged(syncs) == syncs


def test_items_without_values_are_given_back():
    syncs = [LoggedSync(1, items(diffs(), {"type": "model", "data": []})), LoggedSync(2, ())]
    assert logged(syncs) == syncs


@pytest.mark.parametrize("text", [lambda n: "a word " * 9, lambda n: random.Random(n).randbytes(40).hex()])
def test_a_large_entry_is_packed_in_parts_and_given_back(text):
    batch = [part(f"prt_{number}", text=text(number)) for number in range(3000)]
    syncs = [LoggedSync(1, items(*batch)), LoggedSync(2, items(*batch[:700]))]
    body = objects.encode_entry("id", syncs, {})
    assert len(objects.pack(body)) < len(body) == len(bytes(body))
    assert objects.unpack(objects.pack(body)) == bytes(body)
    assert logged(syncs) == syncs


@pytest.mark.parametrize(
    "batch",
    [
        [part("a", text="cut \ud83d")],
        [part("\udc00"), part("b"), part("c", text="\ud800é")],
        [{"type": "model", "data": [{"id": "\ud800", "providerID": "é"}, {"id": "m"}]}],
        [{"type": "session", "data": {"title": "\ud83d"}}],
        [diffs({"file": "\ud83d"}, {"file": "plain"}, {"file": "\ud83d"})],
        [part("a", text="backslash \\ud83d")],
    ],
    ids=["value", "key", "model", "session", "diff", "no surrogate"],
)
def test_half_of_a_surrogate_pair_is_kept_in_entries_and_snapshots(batch):
    syncs = [LoggedSync(1, items(*batch))]
    assert logged(syncs) == syncs
    snapshot = LogSnapshot(1, 1, syncs[0].items)
    assert objects.decode_snapshot(objects.pack(objects.encode_snapshot(snapshot))) == snapshot


def test_a_diff_that_the_share_has_is_logged_as_a_number():
    known = items(diffs({"before": "x" * 5000}, {"before": "y" * 5000}))
    content = Content()
    content.apply(known)
    syncs = [LoggedSync(1, known), LoggedSync(2, known)]
    assert len(objects.encode_entry("id", syncs, content.diffs.numbers)) < 300
    assert logged(syncs, content) == syncs


def test_a_diff_is_logged_once_in_an_entry():
    new = items(diffs({"before": "x" * 5000}), diffs({"before": "x" * 5000}, 1))
    syncs = [LoggedSync(1, new), LoggedSync(2, new)]
    assert len(objects.encode_entry("id", syncs, {})) < 5500
    assert logged(syncs) == syncs


def test_a_diff_is_in_a_snapshot_once():
    snapshot = LogSnapshot(9, 8, items(diffs(*[{"before": "x" * 5000}] * 100)))
    body = objects.encode_snapshot(snapshot)
    assert len(body) < 6000
    assert objects.decode_snapshot(objects.pack(body)) == snapshot


def test_an_entry_that_does_not_fit_its_share_is_an_error():
    content = Content()
    content.apply(items(diffs(1, 2, 3)))
    body = objects.encode_entry("id", [LoggedSync(1, items(diffs(3)))], content.diffs.numbers)
    with pytest.raises(StoreError, match="does not fit"):
        objects.decode_entry(objects.pack(body)).syncs(distinct=[])


def test_a_tombstone_is_told_from_an_entry():
    assert objects.decode_entry(objects.encode_tombstone("id")).is_tombstone
    assert not objects.decode_entry(objects.pack(objects.encode_entry("id", [], {}))).is_tombstone


def test_a_head_is_given_back():
    head = Head(1, "00ff", "ses_1", "alice", SecretKind.RANDOM, "hash", 12, Visibility.LINK)
    assert objects.decode_head(objects.encode_head(head)) == head


def test_an_index_row_is_given_back():
    row = IndexRow(1, "00ff", None, ShareState("id", "ses_1", 5).index())
    assert objects.decode_index(objects.encode_index(row)) == row


def decoders():
    return {
        "head": (objects.decode_head, {"v": 1, "generation": "00ff"}),
        "entry": (objects.decode_entry, {"v": 1, "id": "x", "syncs": []}),
        "snapshot": (
            objects.decode_snapshot,
            {"v": 1, "syncCount": 1, "lastUpdated": 1, "items": []},
        ),
    }


@pytest.mark.parametrize("name", ["head", "entry", "snapshot"])
def test_fields_that_are_not_known_are_ignored(name):
    decode, body = decoders()[name]
    decode(json.dumps({**body, "future": {"x": [1]}}).encode())


@pytest.mark.parametrize("name", ["head", "entry", "snapshot"])
def test_a_version_that_is_not_known_is_refused(name):
    decode, _ = decoders()[name]
    with pytest.raises(StoreError, match="of version 2; this server reads 1"):
        decode(b'{"v":2,"other":true}')


@pytest.mark.parametrize("body", [b"", b"{", b"null", b'{"v":1}', b'{"v":"1"}', b"\xff", b"[]"])
@pytest.mark.parametrize("name", ["head", "entry", "snapshot"])
def test_what_cannot_be_read_is_an_error_of_the_store(name, body):
    decode, _ = decoders()[name]
    with pytest.raises(StoreError, match="cannot be read"):
        decode(body)


@pytest.mark.parametrize("body", [b"{}", b"x" * 1023, b"x" * 1024, bytes(range(256)) * 40])
def test_packing_changes_nothing(body):
    assert objects.unpack(objects.pack(body)) == body


def test_large_bodies_are_compressed_and_small_ones_are_not():
    assert len(objects.pack(b"x" * 2000)) < 100
    assert objects.pack(b"x" * 200) == b"x" * 200


def test_a_damaged_compressed_body_is_an_error_of_the_store():
    with pytest.raises(StoreError, match="decompressed"):
        objects.unpack(objects.pack(b"x" * 2000)[:-3])


def test_numbered_keys_are_listed_in_order():
    keys = [objects.numbered("log/", number) for number in (1, 9, 10, 999_999, 10**11)]
    assert keys == sorted(keys)
    assert [objects.number_of(key) for key in keys] == [1, 9, 10, 999_999, 10**11]


def test_the_head_is_listed_behind_every_generation():
    generation = "f" * 16
    keys = [
        objects.log_prefix("id", generation),
        objects.snapshot_prefix("id", generation),
        objects.head_key("id"),
    ]
    assert keys == sorted(keys)


def test_bodies_are_in_no_repr():
    sync = LoggedSync(1, items(part("a", text="the secret")))
    row = IndexRow(1, "00ff", None, ShareState("id", "ses_1", 5).index())
    assert "secret" not in repr(sync) + repr(LogSnapshot(1, 1, sync.items))
    assert "ses_1" not in repr(msgspec.structs.replace(row))


def test_a_head_from_before_there_were_settings_is_that_of_a_share_for_all():
    body = b'{"v":1,"generation":"0123456789abcdef","sessionID":"ses_1","owner":"alice","createdAt":1}'
    head = objects.decode_head(body)
    assert (head.visibility, head.password_hash, head.expires_at) == ("link", None, None)
    assert (head.epoch, head.revision, head.expired) == (0, 0, False)
    assert objects.encode_head(head) == body


def test_a_head_does_not_print_its_hashes():
    head = Head(1, "0" * 16, secret_hash="of the secret", password_hash="of the password")
    assert "of the" not in repr(head)


def test_rows_of_two_nodes_make_one_that_has_the_news_of_both():
    index = objects.SessionIndex("id", "ses_1", "", "", 0, 0, 0, 0, 1, 1, 1)
    synced = IndexRow(1, "0" * 16, "alice", msgspec.structs.replace(index, sync_count=2))
    settled = IndexRow(1, "0" * 16, "alice", index, expires_at=7, revision=1)
    for one, other in ((synced, settled), (settled, synced)):
        merged = one.merged_with(other)
        assert (merged.index.sync_count, merged.expires_at, merged.revision) == (2, 7, 1)


@pytest.mark.parametrize("name", ["junk", "", "000000000009.bak", "-00000000009", "\u0661"])
def test_what_is_no_entry_is_named(name: str) -> None:
    with pytest.raises(StoreError, match=re.escape(f"log/{name} is no entry and no snapshot")):
        objects.number_of(f"log/{name}")

"""A sync that is longer than a message: opencode sends the whole of a session in one request."""

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import zstandard
from whole_sessions import MESSAGE, SHARE, Share, body, half_sent, session

from rpcshare.client import ShareClient
from support.running_server import RunningServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    options = (f"--max-message-size={MESSAGE}", f"--max-share-size={SHARE}")
    with RunningServer(tmp_path_factory.mktemp("large") / "data", *options) as running:
        yield running


@pytest.mark.parametrize("parts", [100, 700])
def test_a_whole_session_is_taken_as_it_is(server: RunningServer, parts: int) -> None:
    share, data = Share(server, f"ses_whole_{parts}"), session(parts)
    sent = body(share.secret, data)
    assert len(sent) > 10 * MESSAGE
    assert share.sync(sent).json() == {"success": True, "syncCount": 1}
    assert share.data() == data


def test_it_is_what_a_short_sync_would_have_made(tmp_path: Path, server: RunningServer) -> None:
    data = session(100)
    with RunningServer(tmp_path / "data") as ample:
        held = []
        for each in (server, ample):
            share = Share(each, "ses_same_either_way")
            share.sync(body(share.secret, data))
            held.append(share.data())
    assert held[0] == held[1]


def test_a_later_one_is_taken_as_well_and_replaces_by_id(server: RunningServer) -> None:
    share, data = Share(server, "ses_sent_again"), session(50)[:-2]
    for count in (1, 2):
        assert share.sync(body(share.secret, data)).json()["syncCount"] == count
    assert share.data() == data


def test_it_may_come_without_its_length(server: RunningServer) -> None:
    share, data = Share(server, "ses_chunked"), session(50)
    text = body(share.secret, data)
    chunks = (text[start : start + 50_000] for start in range(0, len(text), 50_000))
    assert httpx.post(f"{share.url}/sync", content=chunks).status_code == 200
    assert share.data() == data


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_it_may_be_compressed(server: RunningServer, coding: str) -> None:
    share, data = Share(server, f"ses_{coding}"), session(100)
    text = body(share.secret, data)
    packed = gzip.compress(text) if coding == "gzip" else zstandard.compress(text)
    assert len(packed) < MESSAGE < len(text)
    assert share.sync(packed, **{"Content-Encoding": coding}).json() == {"success": True, "syncCount": 1}
    assert share.data() == data


def test_one_that_is_compressed_and_ends_too_soon_changes_nothing(server: RunningServer) -> None:
    share = Share(server, "ses_gzip_cut")
    packed = gzip.compress(body(share.secret, session(100)))
    answer = share.sync(packed[:-9], **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert share.count() == 0


def test_more_than_a_share_may_hold_is_refused_and_remembered_of_a_compressed_one_too(
    server: RunningServer,
) -> None:
    share = Share(server, "ses_gzip_large")
    share.sync(body(share.secret, session(1)[:2]))
    part = {"type": "part", "data": {"id": "prt", "messageID": "msg_0", "text": "x" * (MESSAGE // 2)}}
    text = body(share.secret, [part] * (3 * SHARE // MESSAGE))
    answer = share.sync(gzip.compress(text), **{"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    refusal = httpx.get(f"{share.url}/metadata").json()["lastRefusal"]
    assert refusal["message"] == answer.json()["error"]


def test_of_who_may_not_write_no_more_is_decoded_than_a_message(server: RunningServer) -> None:
    share = Share(server, "ses_gzip_no_right")
    answer = share.sync(gzip.compress(body("wrong", session(700))), **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (403, "INVALID_SECRET")


async def test_the_client_sends_what_is_longer_than_a_message_in_several(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpcshare.client.sync_pieces._MOST_BYTES", MESSAGE // 2)
    data = session(100)
    async with ShareClient(server.url, token=server.token) as client:
        share = await client.create_share("ses_in_pieces", data[:50])
        created = (await client.get_share_metadata(share.id)).sync_count
        count = await client.sync_share(share.id, None, data[50:])
        held = await client.get_share(share.id)
    assert 1 < created < count
    assert held["parts"] == [item["data"] for item in data[2:-2]]
    assert held["diffs"] == data[-2]["data"]


def test_one_that_ends_too_soon_changes_nothing(server: RunningServer) -> None:
    share = Share(server, "ses_cut")
    answer = share.sync(body(share.secret, session(100))[:-1])
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert share.count() == 0


def test_one_with_a_fault_in_the_middle_changes_nothing(server: RunningServer) -> None:
    share, data = Share(server, "ses_fault"), session(100)
    data[70] = {"type": "part", "data": {"id": 7}}
    answer = share.sync(body(share.secret, data))
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "data[70].data.id: must be a string that is not empty",
    )
    assert share.count() == 0


def test_more_than_a_share_may_hold_is_refused_with_the_limit(server: RunningServer) -> None:
    share = Share(server, "ses_too_large")
    answer = share.sync(body(share.secret, session(1200)))
    assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert f"{SHARE:,}" in answer.json()["error"]
    assert share.count() == 0


def test_one_part_longer_than_a_message_is_refused_by_its_place(server: RunningServer) -> None:
    share = Share(server, "ses_long_part")
    part = {"type": "part", "data": {"id": "prt", "text": "x" * MESSAGE}}
    answer = share.sync(body(share.secret, [*session(40), part]))
    assert answer.status_code == 413
    assert answer.json()["error"] == f"the body is larger than {MESSAGE:,} bytes, and so is data[44] alone"


def test_of_who_may_not_write_no_more_is_read_than_a_message(server: RunningServer) -> None:
    share = Share(server, "ses_no_right")
    text = body("wrong", session(100))
    with half_sent(server, share, text[: MESSAGE + 4096], len(text)) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 403 ")


def test_a_secret_behind_the_data_comes_too_late(server: RunningServer) -> None:
    share, data = Share(server, "ses_late_secret"), session(100)
    text = json.dumps({"data": data, "secret": share.secret}).encode()
    answer = share.sync(text)
    assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert "no secret is before its data" in answer.json()["error"]
    assert share.sync(text, **share.headers).status_code == 200


def test_a_wrong_secret_behind_the_data_is_refused_of_the_owner_too(server: RunningServer) -> None:
    share = Share(server, "ses_late_wrong")
    text = json.dumps({"data": session(100), "secret": "wrong"}).encode()
    assert share.sync(text, **share.headers).json()["code"] == "INVALID_SECRET"
    assert share.count() == 0


def test_of_too_many_at_once_some_are_told_to_come_again(server: RunningServer) -> None:
    share = Share(server, "ses_at_once")
    text = body(share.secret, session(900)[:-2])
    assert len(text) < SHARE < 1.2 * len(text)
    with ExitStack() as stack:
        begun = [stack.enter_context(half_sent(server, share, text[:-1], len(text))) for _ in range(2)]
        answers = [share.sync(text)]
        for connection in begun:
            connection.sendall(text[-1:])
            answers.append(parsed(connection.recv(4096)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert share.count() == len(answers) - len(refused)


def parsed(answer: bytes) -> httpx.Response:
    head, _, content = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return httpx.Response(
        int(first.split()[1]), headers=dict(line.split(": ", 1) for line in lines), content=content
    )


def test_no_text_of_it_stays_on_the_disk(server: RunningServer) -> None:
    share = Share(server, "ses_left_over")
    before = {path for path in server.data_dir.rglob("*") if not path.name.startswith("rpcshare.db")}
    assert share.sync(body(share.secret, session(100))).status_code == 200
    assert {path for path in server.data_dir.rglob("*") if not path.name.startswith("rpcshare.db")} == before

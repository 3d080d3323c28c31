"""Little that is sent does not become much: in memory, in answers, for readers that are slow."""

import contextlib
import json
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import zstandard

from rpcshare.rpc.frames import frames_of
from support.running_server import RunningServer

pytestmark = pytest.mark.slow

MB = 2**20
HTTP = httpx.Client(verify=False, timeout=60)
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture(autouse=True, scope="module")
def closing() -> Iterator[None]:
    with HTTP:
        yield


class Shared:
    """A share, and who may write it."""

    def __init__(self, server: RunningServer, session_id: str) -> None:
        self.server = server
        self.headers = {"Authorization": f"Bearer {server.token}"}
        made = HTTP.post(f"{server.url}/api/share", json={"sessionID": session_id}, headers=self.headers)
        self.id = made.json()["id"]
        self.url = f"{server.url}/api/share/{self.id}"

    def sync(self, *data: object) -> httpx.Response:
        return HTTP.post(f"{self.url}/sync", json={"data": data}, headers=self.headers, timeout=60)

    def fill(self, size: int) -> None:
        """Have the share hold ``size`` bytes, which do not compress."""
        for number in range(size // MB):
            texts = [{"id": f"{number}.{index}", "text": os.urandom(2048).hex()} for index in range(256)]
            assert self.sync(*({"type": "part", "data": text} for text in texts)).status_code == 200


def diffs(*values: object) -> dict[str, object]:
    return {"type": "session_diff", "data": values}


def resident(server: RunningServer) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def ask(server: RunningServer, path: str, headers: str = "") -> socket.socket:
    """Return a connection on which something has been asked for, by a client that takes hardly anything."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    return connection


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("data")
    with RunningServer(folder, "--max-share-items=50", "--max-share-size=100KiB") as server:
        yield server


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
@pytest.mark.parametrize(("path", "status"), [("/api/share", 401), ("/api/share/nowhere0/sync", 404)])
def test_who_may_not_is_told_so_before_a_body_is_decoded(
    server: RunningServer, path: str, status: int, coding: str
) -> None:
    answer = HTTP.post(f"{server.url}{path}", content=b"not that", headers={"Content-Encoding": coding})
    assert answer.status_code == status


@pytest.mark.parametrize(
    "data",
    [
        [{"type": "part", "data": {"id": f"p{number}"}} for number in range(51)],
        [{"type": "message", "data": {"id": f"m{number}"}} for number in range(51)],
        [{"type": "session", "data": {}}] * 51,
        [diffs(*[0] * 51)],
        [diffs()] * 51,
        [{"type": "model", "data": [{"id": "m"}] * 51}],
    ],
    ids=["parts", "messages", "sessions", "diffs", "empty lists", "models"],
)
def test_a_batch_of_too_many_items_is_refused_with_the_limit(
    small: RunningServer, data: list[object]
) -> None:
    answer = Shared(small, "ses_too_many_items").sync(*data)
    assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert "at most 50 messages, parts, diffs and models" in answer.json()["error"]


def test_a_share_of_too_many_items_takes_no_more_but_what_replaces_one(small: RunningServer) -> None:
    share = Shared(small, "ses_many_items")
    parts = [{"type": "part", "data": {"id": f"p{number}"}} for number in range(40)]
    statuses = [share.sync(*each).status_code for each in (parts, [diffs(*[0] * 11)], [diffs(*[0] * 10)])]
    assert statuses == [200, 413, 200]
    assert share.sync(parts[0]).status_code == 200
    assert share.sync({"type": "part", "data": {"id": "one more"}}).status_code == 413


def test_a_diff_that_is_sent_again_counts_towards_the_size_of_the_share(small: RunningServer) -> None:
    share = Shared(small, "ses_repeated_diffs")
    assert share.sync(diffs("x" * 20_000)).status_code == 200
    answer = share.sync(diffs(*["x" * 20_000] * 5))
    assert (answer.status_code, answer.json()["error"]) == (413, "A share may be at most 102400 bytes")


@pytest.mark.parametrize("value", [[0] * 3_100_000, [[]] * 1_100_000], ids=["numbers", "lists"])
def test_a_body_of_too_many_values_is_refused(server: RunningServer, value: object) -> None:
    answer = Shared(server, "ses_many_values").sync(diffs(value))
    assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert "the body holds more than 1,000,000 arrays and objects, or 3,000,000" in answer.json()["error"]


@pytest.mark.parametrize("text", [",", "[{"])
def test_what_looks_like_values_in_a_text_is_none(server: RunningServer, text: str) -> None:
    share = Shared(server, "ses_text_of_marks")
    assert share.sync({"type": "part", "data": {"id": "p", "text": text * 3_100_000}}).status_code == 200


def test_a_body_that_ends_within_a_string_is_refused_at_once(server: RunningServer) -> None:
    share = Shared(server, "ses_endless_string")
    body = b'{"data":[' + b"," * 3_100_000 + b'"' + b'\\"' * 5_000_000
    answer = HTTP.post(f"{share.url}/sync", content=body, headers=share.headers, timeout=60)
    assert answer.status_code in (400, 413)


def test_a_long_member_beside_the_data_is_refused(server: RunningServer) -> None:
    share = Shared(server, "ses_long_member")
    body = b'{"data":[],"secret":[' + b",".join([b"0"] * 100_000) + b"]}"
    answer = HTTP.post(f"{share.url}/sync", content=body, headers=share.headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "secret: is longer than 65,536 bytes")


@pytest.mark.parametrize("digits", [5_000, 200_000])
def test_a_number_that_is_too_long_to_be_read_is_told_as_such(server: RunningServer, digits: int) -> None:
    share = Shared(server, "ses_long_number")
    body = b'{"data":[' + b"9" * digits + b"]}"
    answer = HTTP.post(f"{share.url}/sync", content=body, headers=share.headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_ARGUMENT")


def test_decoded_bodies_count_among_those_that_are_held(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", f"--max-message-size={MB}") as server, ExitStack() as stack:
        share = Shared(server, "ses_decoded_bodies")
        for _ in range(15):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            head = f"POST /api/share/{share.id}/sync HTTP/1.1\r\nHost: x\r\nContent-Length: {MB}\r\n\r\n"
            held.sendall(head.encode() + b" " * (MB - 1))
        headers = {**share.headers, "Content-Encoding": "zstd"}
        body = b'{"data":[],"x":"' + os.urandom(499_000).hex().encode() + b'"}'
        content = zstandard.ZstdCompressor().compress(body)
        # As it is sent there is room for it; for what it stands for there is not, once the others have come.
        deadline = time.monotonic() + 20
        status = 200
        while status == 200 and time.monotonic() < deadline:
            status = HTTP.post(f"{share.url}/sync", content=content, headers=headers).status_code
        assert status == 429


# --- what leaves --------------------------------------------------------------------------------


def frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield the first byte and the payload of each frame behind a handshake."""
    source = connection.makefile("rb")
    while source.readline() != b"\r\n":
        pass
    while head := source.read(2):
        length = head[1] & 0x7F
        if length >= 126:
            length = int.from_bytes(source.read(2 if length == 126 else 8), "big")
        yield head[0], source.read(length)


def test_a_long_event_is_one_message_in_fragments(server: RunningServer) -> None:
    share = Shared(server, "ses_long_event_fragments")
    share.fill(MB)
    share.sync({"type": "part", "data": {"id": "wide", "text": "é" * 300_000}})
    with ask(server, f"/ws/{share.id}", UPGRADE) as connection:
        firsts, texts = [], []
        for first, payload in frames(connection):
            firsts.append(first)
            texts.append(payload)
            if first & 0x80:
                break
    assert firsts == [0x01, *[0x00] * (len(firsts) - 2), 0x80]
    assert max(map(len, texts)) <= 128 * 1024
    assert all(text.decode() is not None for text in texts)  # no fragment ends within a character
    assert json.loads(b"".join(texts))["data"] == HTTP.get(f"{share.url}/data").json()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/ws/{}", UPGRADE),
        ("/api/share/{}/events", ""),
        ("/api/share/{}/data", ""),
        ("/api/share/{}", "Accept-Encoding: gzip\r\n"),
        ("/api/share/{}/data", "Accept-Encoding: zstd\r\n"),
    ],
    ids=["ws", "events", "plain", "gzip", "zstd"],
)
def test_slow_readers_do_not_hold_a_copy_each(tmp_path: Path, path: str, headers: str) -> None:
    size, readers = 8 * MB, 25
    with RunningServer(tmp_path / "data") as server, ExitStack() as stack:
        share = Shared(server, "ses_slow_readers")
        share.fill(size)
        before = resident(server)
        for _ in range(readers):
            stack.enter_context(ask(server, path.format(share.id), headers)).recv(12)
        HTTP.get(f"{server.url}/healthz")
        assert resident(server) - before < readers * size / 4


def test_readers_who_stopped_at_different_versions_hold_few_of_them(tmp_path: Path) -> None:
    size, versions = 12 * MB, 32
    with RunningServer(tmp_path / "data") as server, ExitStack() as stack:
        share = Shared(server, "ses_many_versions")
        before = 0
        for version in range(versions):
            text = f"{version:04}" * (10 * 1024)
            parts = ({"type": "part", "data": {"id": f"p{number}", "text": text}} for number in range(300))
            assert share.sync(*parts).status_code == 200
            before = before or resident(server)
            for path, headers in (
                ("/ws/{}", UPGRADE),
                ("/api/share/{}/events", ""),
                ("/api/share/{}/data", ""),
            ):
                stack.enter_context(ask(server, path.format(share.id), headers)).recv(12)
        assert HTTP.get(f"{server.url}/healthz").status_code == 200
        assert resident(server) - before < versions * size / 2


def test_slow_subscribers_over_rpc_hold_no_more_copies_than_there_is_room_for(tmp_path: Path) -> None:
    size, subscribers = 12 * MB, 20
    with RunningServer(tmp_path / "data") as server, ExitStack() as stack:
        share = Shared(server, "ses_slow_subscribers")
        share.fill(size)
        before = resident(server)
        headers = f"{UPGRADE}Authorization: Bearer {server.token}\r\n"
        call = b'["push",["pipeline",0,["subscribe"],["%b",["export",-1]]]]' % share.id.encode()
        for _ in range(subscribers):
            connection = stack.enter_context(ask(server, "/rpc", headers))
            assert connection.recv(12) == b"HTTP/1.1 101"
            connection.sendall(frames_of([call], text=True, masked=True))
        most = 0
        for _ in range(20):
            HTTP.get(f"{server.url}/healthz")
            most = max(most, resident(server) - before)
            time.sleep(0.1)
        assert most < subscribers * size / 1.5


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["", "/data"])
def test_a_long_document_is_the_same_in_every_coding_and_its_head_says_so(
    server: RunningServer, form: str, coding: str
) -> None:
    share = Shared(server, f"ses_long_document_{coding}{len(form)}")
    share.fill(MB)
    share.sync(diffs({"file": "a"}, {"file": "a"}), {"type": "model", "data": [{"id": "m"}]})
    headers = {"Accept-Encoding": coding}
    answer = HTTP.get(f"{share.url}{form}", headers=headers)
    head = HTTP.head(f"{share.url}{form}", headers=headers)
    assert answer.headers.get("Content-Encoding", "identity") == coding
    assert int(answer.headers["Content-Length"]) == answer.num_bytes_downloaded
    names = ("ETag", "Last-Modified", "Content-Encoding", "Content-Length", "Vary", "Content-Type")
    assert [head.headers.get(name) for name in names] == [answer.headers.get(name) for name in names]
    known = {**headers, "If-None-Match": answer.headers["ETag"]}
    assert HTTP.get(f"{share.url}{form}", headers=known).status_code == 304
    found = answer.json()
    assert len(found["parts"] if form == "" else [each for each in found if each["type"] == "part"]) == 256


def test_messages_that_are_begun_and_not_ended_have_one_bound_for_all_connections(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server, contextlib.ExitStack() as stack:
        before, most = resident(server), 0
        begun = b"\x81\xff" + struct.pack("!Q", 31 * 2**20) + bytes(4) + b'["push","'
        for _ in range(40):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.settimeout(5)
            connection.sendall(
                b"GET /rpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                b"Authorization: Bearer " + server.token.encode() + b"\r\n\r\n"
            )
            assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
            with contextlib.suppress(OSError):  # it may be ended meanwhile
                connection.sendall(begun + bytes(24 * 2**20))
            most = max(most, resident(server))
        # 960 MiB were sent, and the sessions together may hold 512.
        assert most - before < 640 * 2**20
        assert httpx.get(f"{server.url}/healthz", timeout=5).status_code == 200

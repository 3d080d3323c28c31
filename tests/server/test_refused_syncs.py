"""Where a sync is refused, whoever looks at the share is told: many a client tells nobody."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from whole_sessions import MESSAGE, SHARE, Share, body, half_sent, session

from support.running_server import RPCSHARE, RunningServer, bare_environment

TOO_LARGE = f"the body is larger than {SHARE:,} bytes"
OPTIONS = (f"--max-message-size={MESSAGE}", f"--max-share-size={SHARE}")
PART = {"type": "part", "data": {"id": "prt", "messageID": "msg", "type": "text", "text": "x"}}
MALFORMED = [PART, {"type": "part", "data": {"id": 7}}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("refused") / "data", *OPTIONS) as running:
        yield running


def metadata(share: Share) -> dict[str, object]:
    return dict(httpx.get(f"{share.url}/metadata").json())


def refused(share: Share) -> str | None:
    told = metadata(share).get("lastRefusal")
    return told["message"] if isinstance(told, dict) else None


def page(server: RunningServer, share: Share) -> str:
    return httpx.get(f"{server.url}/share/{share.path.split('/')[3]}").text


def test_what_is_too_large_is_told_to_who_reads_the_share(server: RunningServer) -> None:
    share = Share(server, "ses_refused_whole")
    text = body(share.secret, session(100))
    with half_sent(server, share, text[: 2 * MESSAGE], SHARE + 1) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    told = metadata(share)["lastRefusal"]
    assert isinstance(told, dict)
    assert (told["code"], told["message"]) == ("PAYLOAD_TOO_LARGE", TOO_LARGE)
    assert "The last sync was refused" in page(server, share)
    assert TOO_LARGE in page(server, share)


def test_data_that_is_malformed_is_told_until_a_sync_is_taken(server: RunningServer) -> None:
    share = Share(server, "ses_refused_data")
    assert refused(share) is None
    assert share.sync(body(share.secret, MALFORMED)).status_code == 400
    assert refused(share) == "data[1].data.id: must be a string that is not empty"
    assert share.sync(body(share.secret, [PART])).status_code == 200
    assert refused(share) is None
    assert "was refused" not in page(server, share)


def test_a_body_that_is_no_json_is_told_if_the_owner_sent_it(server: RunningServer) -> None:
    share = Share(server, "ses_refused_owner")
    assert share.sync(b"{", **share.headers).status_code == 400
    assert (refused(share) or "").startswith("the body is not JSON")


@pytest.mark.parametrize("sent", [b"{", body("wrong", MALFORMED), body("wrong", session(40))])
def test_nobody_else_can_have_something_told(server: RunningServer, sent: bytes) -> None:
    share = Share(server, "ses_refused_stranger")
    assert share.sync(sent).status_code >= 400
    with half_sent(server, share, sent + b" " * 2 * MESSAGE, SHARE + 1) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 4")
    assert refused(share) is None


LARGE_PART = {"type": "part", "data": {"id": "prt", "messageID": "msg", "text": "x" * (MESSAGE + 1000)}}


def test_an_item_that_is_too_large_is_told_whoever_shows_the_secret(server: RunningServer) -> None:
    share = Share(server, "ses_refused_item")
    assert share.sync(body(share.secret, [LARGE_PART])).status_code == 413
    assert refused(share) is not None


def test_a_wrong_secret_before_an_item_that_is_too_large_is_wrong(server: RunningServer) -> None:
    share = Share(server, "ses_refused_guess")
    answer = share.sync(body("wrong", [LARGE_PART]))
    assert (answer.status_code, answer.json()["code"]) == (403, "INVALID_SECRET")
    assert refused(share) is None


def test_the_owner_sees_it_in_lists_and_the_operator_in_the_log(server: RunningServer) -> None:
    share = Share(server, "ses_refused_listed")
    share.sync(body(share.secret, MALFORMED))
    rows = httpx.get(f"{server.url}/api/my-sessions", headers=share.headers).json()["sessions"]
    told = {row["sessionID"]: row.get("lastRefusal", {}).get("message") for row in rows}
    assert told["ses_refused_listed"] == "data[1].data.id: must be a string that is not empty"
    assert "last sync refused" in httpx.get(f"{server.url}/my-sessions", headers=share.headers).text
    assert "data[1].data.id: must be a string" in server.log.read_text()
    assert share.secret not in server.log.read_text()


async def test_ls_names_the_shares_and_says_why(server: RunningServer, tmp_path: Path) -> None:
    share = Share(server, "ses_refused_ls")
    share.sync(body(share.secret, MALFORMED))
    env = bare_environment(RPCSHARE_URL=server.url, RPCSHARE_TOKEN=server.token, HOME=str(tmp_path))
    ran = await asyncio.create_subprocess_exec(
        RPCSHARE,
        "ls",
        "ses_refused_ls",
        env=env,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    _, errors = await ran.communicate()
    assert "the last sync was refused: data[1].data.id: must be a string" in errors.decode()


@pytest.mark.slow
def test_it_is_told_after_a_restart(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", *OPTIONS) as server:
        share = Share(server, "ses_refused_restart")
        share.sync(body(share.secret, MALFORMED))
        server.stop()
        server.restart()
        share.url = share.url.replace(share.url.split("/api")[0], server.url)
        assert json.dumps(metadata(share)).count("must be a string") == 1

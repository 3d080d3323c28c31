"""Limits and the audit log of a server that runs, from the outside."""

import json
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from support.running_server import RunningServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data = tmp_path_factory.mktemp("limited") / "data"
    options = ("--max-creates=3", "--max-failed-authentications=4", "--max-connections=2")
    with RunningServer(data, *options, f"--audit-log={data.with_name('audit.log')}") as server:
        yield server


def audit_of(server: RunningServer) -> list[dict[str, object]]:
    text = server.data_dir.with_name("audit.log").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_what_was_too_much_is_answered_429_and_told_to_the_audit_log(limited: RunningServer) -> None:
    # One test: each limit is of the minute and of the address that all tests have.
    headers = bearer(limited.token)
    share = httpx.post(f"{limited.url}/api/share", json={"sessionID": "ses_limits_1"}, headers=headers).json()
    for number in (2, 3):
        body = {"sessionID": f"ses_limits_{number}"}
        assert httpx.post(f"{limited.url}/api/share", json=body, headers=headers).status_code == 200
    answer = httpx.post(f"{limited.url}/api/share", json={"sessionID": "ses_limits_4"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED")
    assert 0 < int(answer.headers["retry-after"]) <= 60

    websocket = limited.url.replace("http", "ws") + "/rpc"
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connect(websocket, additional_headers=headers, proxy=None))
        with pytest.raises(InvalidStatus) as refused:
            stack.enter_context(connect(websocket, additional_headers=headers, proxy=None))
        batch = httpx.post(f"{limited.url}/rpc", content='["push",1]', headers=headers)
        assert (batch.status_code, batch.json()["code"]) == (429, "RATE_LIMITED")
    assert refused.value.response.status_code == 429
    assert refused.value.response.headers["Retry-After"] == "10"

    path = f"{limited.url}/api/share/{share['id']}"
    guesses = [httpx.get(path, headers=bearer(f"wrong-{number}")).status_code for number in range(2)]
    guesses += [
        httpx.post(f"{path}/sync", json={"secret": f"wrong-{number}", "data": []}).status_code
        for number in range(2)
    ]
    assert guesses == [401, 401, 403, 403]
    answer = httpx.get(path, headers=bearer("wrong-3"))
    assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED")
    assert 0 < int(answer.headers["retry-after"]) <= 60
    answer = httpx.post(f"{path}/sync", json={"secret": share["secret"], "data": []})
    assert answer.status_code == 429  # it has not been shown before
    assert httpx.get(path).status_code == 200
    assert httpx.get(f"{limited.url}/api/my-sessions", headers=headers).status_code == 200
    assert httpx.delete(path, headers=headers).status_code == 200

    lines = audit_of(limited)
    assert [(line["action"], line["outcome"], line.get("reason")) for line in lines] == [
        ("share.create", "ok", None),
        ("share.create", "ok", None),
        ("share.create", "ok", None),
        ("share.create", "refused", "RATE_LIMITED"),
        ("connect", "refused", "RATE_LIMITED"),
        ("authenticate", "refused", "UNAUTHORIZED"),
        ("authenticate", "refused", "UNAUTHORIZED"),
        ("share.sync", "refused", "INVALID_SECRET"),
        ("share.sync", "refused", "INVALID_SECRET"),
        ("authenticate", "refused", "RATE_LIMITED"),
        ("share.sync", "refused", "RATE_LIMITED"),
        ("share.delete", "ok", None),
    ]
    fields = {"time", "action", "outcome", "subject", "address", "share"}
    assert all(set(line) - {"reason"} == fields for line in lines)
    assert {line["address"] for line in lines} == {"127.0.0.1"}
    assert (lines[0]["share"], lines[0]["subject"]) == (share["id"], "admin")
    written = json.dumps(lines)
    assert not any(secret in written for secret in (share["secret"], limited.token, "wrong-"))


def test_the_audit_log_is_its_owners_alone(limited: RunningServer) -> None:
    mode = limited.data_dir.with_name("audit.log").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_an_audit_log_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    with RunningServer(tmp_path / "data", f"--audit-log={log}") as server:
        log.rename(tmp_path / "audit.log.1")
        httpx.get(f"{server.url}/api/my-sessions", headers=bearer("wrong"))
        assert json.loads(log.read_text())["action"] == "authenticate"


def test_an_audit_log_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"rpcshare: .*audit\.log: No such file or directory"):
        RunningServer(tmp_path / "data", f"--audit-log={tmp_path / 'missing' / 'audit.log'}")


def test_without_a_file_the_audit_log_is_in_the_log_whatever_its_level(tmp_path: Path) -> None:
    options = ("--log-format=json", "--log-level=error")
    with RunningServer(tmp_path / "data", *options) as server:
        httpx.get(f"{server.url}/api/my-sessions", headers=bearer("wrong"))
        line = json.loads(server.log.read_text().splitlines()[-1])
    assert (line["logger"], line["reason"]) == ("rpcshare.audit", "UNAUTHORIZED")

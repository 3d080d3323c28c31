"""npm's capnweb, unchanged, as a client of the server."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.running_server import RunningServer

NODE = Path(__file__).parents[1] / "node"

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(
        not (NODE / "node_modules" / "capnweb").is_dir(),
        reason="needs node, and tests/node/node_modules as `make test` installs them",
    ),
]


class Outcome:
    """What a scenario of share_client.mjs returned, and the frames that passed."""

    def __init__(self, output: dict[str, Any]) -> None:
        self.result = output["result"]
        self.frames: list[dict[str, Any]] = output["frames"]

    @property
    def sent_before_any_reply(self) -> list[Any]:
        first_reply = next(i for i, frame in enumerate(self.frames) if "received" in frame)
        return [frame["sent"] for frame in self.frames[:first_reply]]


def run(server: RunningServer, scenario: str, session_id: str) -> Outcome:
    finished = subprocess.run(
        ["node", "share_client.mjs", server.url, server.token, scenario, session_id],
        cwd=NODE,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return Outcome(json.loads(finished.stdout))


def test_create_with_data_is_one_call(server: RunningServer) -> None:
    outcome = run(server, "createWithData", "ses_npm_create_with_data1")
    assert outcome.result["id"] == "th_data1"
    assert outcome.result["url"] == f"{server.url}/share/th_data1"
    pushes = [message for message in outcome.sent_before_any_reply if message[0] == "push"]
    assert len(pushes) == 1
    assert pushes[0][1][2] == ["createShare"]


def test_create_and_sync_leave_before_any_reply_when_pipelined(server: RunningServer) -> None:
    outcome = run(server, "pipelined", "ses_npm_pipelined_0001")
    create, sync = [m[1] for m in outcome.sent_before_any_reply if m[0] == "push"][:2]
    assert create == ["pipeline", 0, ["createShare"], ["ses_npm_pipelined_0001"]]
    assert sync[2] == ["syncShare"]
    assert sync[3][:2] == [["pipeline", 1, ["id"]], ["pipeline", 1, ["secret"]]]
    assert outcome.result["synced"] == {"success": True, "syncCount": 1}


def test_every_method_answers_what_the_contract_says(server: RunningServer) -> None:
    session_id = "ses_npm_every_method"
    result = run(server, "everyMethod", session_id).result
    share_id = result["share"]["id"]
    assert share_id == session_id[-8:]
    assert result["synced"] == {"success": True, "syncCount": 1}
    assert result["session"]["messages"] == [{"id": "msg_1", "role": "user"}]
    assert [part["text"] for part in result["session"]["parts"]] == ["hello"]
    assert result["session"]["metadata"]["sessionID"] == session_id
    assert "secret" not in json.dumps(result["session"])
    assert result["metadata"]["messageCount"] == 1
    assert result["metadata"]["partCount"] == 1
    assert [share["id"] for share in result["listed"]["sessions"]] == [share_id]
    assert result["who"] == {"subject": "admin", "scopes": ["admin"]}
    assert result["again"] == result["share"]
    assert result["deleted"] == {"success": True}
    assert result["gone"] == {"name": "Error", "message": "Share not found", "code": "SHARE_NOT_FOUND"}


def test_dates_bytes_and_callbacks_pass_both_ways(server: RunningServer) -> None:
    result = run(server, "probes", "ses_unused").result
    assert result["value"] == {
        "when": "2009-02-13T23:31:30.123Z",
        "bytes": [1, 2, 255],
        "size": 3,
        "nested": {"list": [[], [1, [2]]], "": None},
    }
    assert result["called"] == "heard server-called"
    assert result["heard"] == ["server-called"]


def test_failures_arrive_with_their_codes_and_change_nothing(server: RunningServer) -> None:
    result = run(server, "errors", "ses_npm_errors_00000001").result
    assert result["notFound"] == {"name": "Error", "message": "Share not found", "code": "SHARE_NOT_FOUND"}
    assert result["wrongSecret"] == {"name": "Error", "message": "Invalid secret", "code": "INVALID_SECRET"}
    for name in ("badData", "badID", "badType"):
        assert result[name]["code"] == "INVALID_ARGUMENT"
    assert result["noMethod"]["message"] == "'dropEverything' is not a function."
    assert result["stillThere"]["syncCount"] == 0


def test_a_subscriber_gets_a_snapshot_then_each_sync_then_the_end(server: RunningServer) -> None:
    events = run(server, "subscribe", "ses_npm_subscribe_0001").result
    assert [event["type"] for event in events] == ["snapshot", *["sync"] * 5, "deleted"]
    assert [event.get("syncCount") for event in events] == [1, 2, 3, 4, 5, 6, None]
    assert [event["data"][0]["data"]["text"] for event in events[1:-1]] == ["0", "1", "2", "3", "4"]


def test_no_event_comes_after_unsubscribe(server: RunningServer) -> None:
    assert run(server, "unsubscribe", "ses_npm_unsubscribe_01").result == [1]


def test_watch_is_the_same_as_a_stream(server: RunningServer) -> None:
    events = run(server, "watch", "ses_npm_watch_00000001").result
    assert [event["type"] for event in events] == ["snapshot", *["sync"] * 5, "deleted"]
    assert [event["data"][0]["data"]["text"] for event in events[1:-1]] == ["0", "1", "2", "3", "4"]


def test_an_opened_share_is_used_without_its_secret(server: RunningServer) -> None:
    result = run(server, "openShare", "ses_npm_open_share_001").result
    assert result["synced"] == {"success": True, "syncCount": 1}
    assert result["messages"] == [{"id": "msg_1", "role": "user"}]
    assert result["refused"]["code"] == "INVALID_SECRET"
    assert result["deleted"] == {"success": True}
    assert result["gone"]["code"] == "SHARE_NOT_FOUND"


def test_a_token_can_be_shown_in_band(server: RunningServer) -> None:
    result = run(server, "authenticate", "ses_unused").result
    assert result["who"] == {"subject": "admin", "scopes": ["admin"]}
    assert result["refused"]["code"] == "UNAUTHORIZED"


def test_values_without_a_json_form_are_kept_as_javascript_would_print_them(server: RunningServer) -> None:
    (message,) = run(server, "undefinedAndDates", "ses_npm_undefined_0001").result
    assert message == {"id": "msg_1", "at": "1970-01-01T00:00:00.000Z", "list": [None, None, 12]}

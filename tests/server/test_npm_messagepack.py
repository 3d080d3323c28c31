"""npm's capnweb in MessagePack, by the transport in clients/messagepack."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.running_server import RunningServer

PACKAGE = Path(__file__).parents[2] / "clients" / "messagepack"

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(
        not (PACKAGE / "node_modules" / "capnweb").is_dir(),
        reason="needs node, and clients/messagepack/node_modules as `make test` installs them",
    ),
]


def run(server: RunningServer, scenario: str) -> dict[str, Any]:
    finished = subprocess.run(
        ["node", "test/session.mjs", server.url, server.token, scenario],
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    output: dict[str, Any] = json.loads(finished.stdout)
    return output


def test_calls_pipeline_and_errors_have_their_codes(server: RunningServer) -> None:
    result = run(server, "share")["result"]
    assert result["synced"] == {"success": True, "syncCount": 1}
    assert result["messages"] == [
        {"id": "msg_1", "text": "größer 🙂", "list": [[], [1.5, -1, 2**40]], "": None}
    ]
    assert result["missing"] == {"error": "Share not found", "code": "SHARE_NOT_FOUND"}


def test_every_frame_is_binary(server: RunningServer) -> None:
    frames = run(server, "values")["frames"]
    assert frames["sent"] > 2
    assert frames["received"] > 2
    assert frames["text"] == 0


def test_values_pass_both_ways(server: RunningServer) -> None:
    result = run(server, "values")["result"]
    assert result["probed"] == {
        "when": "2009-02-13T23:31:30.123Z",
        "bytes": [7, 7, 7],
        "size": 3,
        "nested": {"list": [[], [1, [2]]], "": None},
    }
    assert result["heard"] == ["server-called"]
    assert (result["when"], result["big"], result["nan"]) == (5, str(2**70), True)


def test_bytes_arrive_in_a_buffer_of_their_own(server: RunningServer) -> None:
    result = run(server, "values")["result"]
    assert (result["bytes"], result["buffer"]) == ([1, 2, 255], 3)


def test_a_name_that_javascript_has_for_itself_is_dropped_as_in_json(server: RunningServer) -> None:
    assert run(server, "names")["result"] == {"names": ["kept"], "polluted": None}


def test_a_browser_shows_its_token_as_a_subprotocol(server: RunningServer) -> None:
    assert run(server, "browser")["result"] == {"subject": "admin", "scopes": ["admin"]}


def test_a_server_that_selects_another_subprotocol_ends_the_session(server: RunningServer) -> None:
    result = run(server, "notSelected")["result"]
    assert result["error"] == "the server has not selected the subprotocol rpcshare.msgpack"
    # By the client; or by the server, for what the client had sent before it knew.
    assert result["closed"] in (3000, 1007)


def test_a_text_frame_ends_the_session(server: RunningServer) -> None:
    assert run(server, "textFrame")["result"] == {"error": "a message in MessagePack comes in a binary frame"}


def test_a_refused_handshake_fails_the_calls(server: RunningServer) -> None:
    assert run(server, "refused")["result"] == {"error": "WebSocket connection failed."}


@pytest.mark.slow
def test_the_types_say_what_the_package_does() -> None:
    checked = subprocess.run(
        ["npm", "test", "--silent"], cwd=PACKAGE, capture_output=True, text=True, timeout=200, check=False
    )
    assert checked.returncode == 0, checked.stdout

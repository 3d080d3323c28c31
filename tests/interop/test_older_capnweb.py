"""npm's capnweb as a client of the server: from the version that a fork of opencode pins to the newest."""

import json
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from support.running_server import RunningServer

NODE = Path(__file__).parent.parent / "node"
VERSIONS = ("0.4.0", "0.5.0", "0.8.0", "0.10.0", "0.12.0")
HAS_CODES = ("0.8.0", "0.10.0", "0.12.0")
"""Those that keep an error's properties."""
READS_ENDS = ("0.10.0", "0.12.0")
"""Those that show why a session was ended. The others have it in the ``value`` of what they throw."""

pytestmark = pytest.mark.node


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def found(version: str, node: str, server: RunningServer) -> dict[str, Any]:
    package = "capnweb" if version == VERSIONS[-1] else f"capnweb-{version}"
    installed = json.loads((NODE / "node_modules" / package / "package.json").read_text())
    assert installed["version"] == version
    finished = subprocess.run(
        [node, "older_client.mjs", package, server.url, server.token, f"ses_{uuid4().hex}"],
        cwd=NODE,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_it_subscribes_and_gets_every_event(found: dict[str, Any]) -> None:
    assert found["types"] == ["snapshot", "sync"]
    assert found["counts"] == 51
    assert found["last"] == "p51"
    assert found["broken"] is None


def test_it_shares_and_is_called_back(found: dict[str, Any]) -> None:
    assert found["synced"] == 2
    assert found["callback"] == "SERVER-CALLED"
    assert found["probe"] == {
        "when": "1970-01-01T00:00:00.000Z",
        "bytes": [1, 2],
        "size": 2,
        "nested": {"x": 1},
    }
    assert found["batch"] == 52


def test_its_errors_can_be_read(found: dict[str, Any], version: str) -> None:
    errors = found["errors"]
    told = {name: errors[name]["text"] for name in ("missing", "batch", "secret", "argument")}
    assert told == {
        "missing": "Error: Share not found",
        "batch": "Error: Share not found",
        "secret": "Error: Invalid secret",
        "argument": "Error: sessionID: must be a string of 1 to 256 letters, digits, _ and -",
    }
    codes = [errors[name]["code"] for name in told]
    with_codes = ["SHARE_NOT_FOUND", "SHARE_NOT_FOUND", "INVALID_SECRET", "INVALID_ARGUMENT"]
    assert codes == (with_codes if version in HAS_CODES else [None] * 4)


def test_it_tells_why_a_session_was_ended(found: dict[str, Any], version: str) -> None:
    ended = found["errors"]["ended"]
    assert ended["reason"] == "limit exceeded: message bytes (at most 16,777,216)"
    assert (ended["text"] == f"Error: {ended['reason']}") == (version in READS_ENDS)

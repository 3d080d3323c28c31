"""What a prompt has removed for good is on no page, in no export to be read, and in no search."""

import json
import time

import httpx
import pytest

from support.running_server import RunningServer

T0 = 1_760_000_000_000


def session(updated: int, **more: object) -> dict[str, object]:
    data = {"id": "ses_back", "directory": "/d", "title": "T", "time": {"created": T0, "updated": updated}}
    return {"type": "session", "data": {**data, **more}}


def said(name: str, created: int, text: str, role: str = "user") -> list[dict[str, object]]:
    message = {"id": name, "sessionID": "ses_back", "role": role, "time": {"created": created}}
    part = {"id": f"prt_{name}", "messageID": name, "sessionID": "ses_back", "type": "text", "text": text}
    return [{"type": "message", "data": message}, {"type": "part", "data": part}]


SYNCS = [
    [session(T0 + 9), *said("msg_1", T0 + 1, "keepable words"), *said("msg_2", T0 + 8, "regrettable words")],
    [session(T0 + 20, revert={"messageID": "msg_2"})],
    [session(T0 + 30), *said("msg_3", T0 + 31, "better words")],
]


@pytest.fixture
def share(server: RunningServer) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {server.token}"}
    body = {"sessionID": f"ses_back_{time.monotonic_ns()}"}
    made: dict[str, str] = httpx.post(f"{server.url}/api/share", json=body, headers=headers).json()
    for data in SYNCS:
        sent = {"secret": made["secret"], "data": data}
        assert httpx.post(f"{server.url}/api/share/{made['id']}/sync", json=sent).status_code == 200
    return made


def test_the_page_shows_what_is_left(server: RunningServer, share: dict[str, str]) -> None:
    page = httpx.get(f"{server.url}/share/{share['id']}", timeout=30).text
    assert "keepable" in page
    assert "better" in page
    assert "regrettable" not in page


@pytest.mark.parametrize("form", ["markdown", "opencode"])
def test_an_export_has_what_is_left(server: RunningServer, share: dict[str, str], form: str) -> None:
    text = httpx.get(f"{server.url}/api/share/{share['id']}/export?format={form}").text
    assert "keepable" in text
    assert "better" in text
    assert "regrettable" not in text


def test_what_was_sent_can_still_be_read(server: RunningServer, share: dict[str, str]) -> None:
    assert "regrettable" in json.dumps(httpx.get(f"{server.url}/api/share/{share['id']}/data").json())


def test_a_search_finds_what_is_left(server: RunningServer, share: dict[str, str]) -> None:
    def found(words: str) -> set[str]:
        headers = {"Authorization": f"Bearer {server.token}"}
        hits = httpx.get(f"{server.url}/api/search", params={"q": words}, headers=headers).json()["hits"]
        return {hit["messageID"] for hit in hits if hit["shareID"] == share["id"]}

    deadline = time.monotonic() + 30
    while "msg_3" not in found("better words") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found("words") == {"msg_1", "msg_3"}

"""The link that the start of a server prints signs in, once and for a short time."""

from pathlib import Path

import httpx
import pytest

from rpcshare.auth.sign_in_link import LASTS, SignInLink
from support.running_server import RunningServer

pytestmark = pytest.mark.slow

BASE = "https://share.example"


def secret_of(link: SignInLink) -> str:
    return link.address(BASE).partition("#once=")[2]


def test_it_stands_for_the_token_once() -> None:
    link = SignInLink("the-token")
    assert link.take("wrong") is None
    assert [link.take(secret_of(link)) for _ in range(3)] == ["the-token", None, None]


def test_it_ends_after_ten_minutes() -> None:
    now = 0.0
    link = SignInLink("the-token", lambda: now)
    now = LASTS
    assert LASTS == 600
    assert link.take(secret_of(link)) is None


def test_the_secret_is_in_the_fragment_alone() -> None:
    link = SignInLink("the-token")
    assert link.address(BASE) == f"{BASE}/sign-in#once={secret_of(link)}"
    assert "the-token" not in link.address(BASE)


def test_a_server_signs_in_whoever_has_its_link_and_logs_no_secret(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", "--workers=2", "--access-log") as server:
        assert server.process.stdout is not None
        lines = [server.process.stdout.readline() for _ in range(4)]
        address, _, secret = lines[3].split()[2].partition("#once=")
        answers, listed = [], []
        for _ in range(4):  # on connections of their own, which either worker may accept
            with httpx.Client(base_url=server.url, timeout=30) as browser:
                form = {"once": secret, "next": "sessions"}
                answer = browser.post("/sign-in", data=form, headers={"Origin": server.url})
                answers.append(answer.status_code)
                listed.append(browser.get("/sessions").status_code)
        page = httpx.get(address, timeout=30)
        server.stop()
        log = server.log.read_text()
    assert str(tmp_path / "data") in lines[2]
    assert (answers, listed) == ([303, 401, 401, 401], [200, 401, 401, 401])
    assert (page.status_code, 'name="once"' in page.text) == (200, True)
    assert secret not in log
    assert "/sign-in" in log

"""Sub-agents: their shares are linked both ways for who may read them, and what they cost is in the sum."""

import itertools
import re
import subprocess
from typing import Any

import httpx
import pytest

from support.running_server import RPCSHARE, RunningServer, bare_environment

T0 = 1_760_000_000_000
numbers = itertools.count()


def session(session_id: str, **more: object) -> dict[str, object]:
    data = {
        "id": session_id,
        "title": session_id,
        "directory": "/d",
        "time": {"created": T0, "updated": T0 + 9},
    }
    return {"type": "session", "data": {**data, **more}}


def answer(session_id: str, cost: float, tokens: int) -> dict[str, object]:
    data = {
        "id": f"msg_{session_id}",
        "sessionID": session_id,
        "role": "assistant",
        "time": {"created": T0 + 1, "completed": T0 + 2},
        "cost": cost,
        "tokens": {"input": tokens, "output": 1, "reasoning": 0, "cache": {"read": 0, "write": 0}},
    }
    return {"type": "message", "data": data}


def task(session_id: str, child: str) -> dict[str, object]:
    state = {
        "status": "completed",
        "input": {"description": "Look", "prompt": "Look around", "subagent_type": "explore"},
        "output": f'<task id="{child}" state="completed">\n<task_result>\nFine.\n</task_result>\n</task>',
        "title": "Look",
        "metadata": {"sessionId": child},
        "time": {"start": 1, "end": 5},
    }
    data = {"id": f"prt_{child}", "messageID": f"msg_{session_id}", "sessionID": session_id}
    return {"type": "part", "data": {**data, "type": "tool", "tool": "task", "callID": "c", "state": state}}


class Family:
    """A session and a sub-agent's, both shared."""

    def __init__(self, server: RunningServer) -> None:
        self.server, number = server, next(numbers)
        self.parent_id, self.child_id = (
            f"ses_p{number}_parent_{number:04}",
            f"ses_c{number}_child_{number:04}",
        )
        self.parent = self.share(self.parent_id)
        self.fill(self.parent, session(self.parent_id), answer(self.parent_id, 1.0, 1000), self.task())

    def task(self) -> dict[str, object]:
        return task(self.parent_id, self.child_id)

    def share(self, session_id: str, key: str | None = None, **options: object) -> dict[str, Any]:
        headers = {"Authorization": f"ApiKey {key}" if key else f"Bearer {self.server.token}"}
        body = {"sessionID": session_id, **options}
        made = httpx.post(f"{self.server.url}/api/share", json=body, headers=headers)
        assert made.status_code == 200, made.text
        return dict(made.json())

    def share_child(self, key: str | None = None, **options: object) -> dict[str, Any]:
        child = self.share(self.child_id, key, **options)
        self.fill(child, session(self.child_id, parentID=self.parent_id), answer(self.child_id, 2.5, 5000))
        return child

    def fill(self, share: dict[str, Any], *data: object) -> None:
        sent = {"secret": share["secret"], "data": data}
        url = f"{self.server.url}/api/share/{share['id']}/sync"
        answered = httpx.post(url, json=sent)
        assert answered.status_code == 200, answered.text

    def page(self, share: dict[str, Any], *, is_owner: bool = False) -> str:
        headers = {"Authorization": f"Bearer {self.server.token}"} if is_owner else {}
        return httpx.get(f"{self.server.url}/share/{share['id']}", headers=headers, timeout=30).text


@pytest.fixture
def family(server: RunningServer) -> Family:
    return Family(server)


def links(page: str) -> set[str]:
    return set(re.findall(r'<a href="([^"?#/]+)"', page))


def test_a_sub_agent_and_who_started_it_are_linked(family: Family) -> None:
    child = family.share_child()
    assert child["id"] in links(family.page(family.parent))
    assert family.parent["id"] in links(family.page(child))


def test_what_a_sub_agent_cost_is_in_the_sum(family: Family) -> None:
    assert "$1.00" in family.page(family.parent)
    family.share_child()
    page = family.page(family.parent)
    assert "$3.50, 1 sub-agent included" in page
    assert "6,000 in" in page or "6.0k in" in page or "6k in" in page


def test_one_that_is_not_shared_is_not_linked(family: Family) -> None:
    assert "The sub-agent's session" not in family.page(family.parent)


@pytest.mark.parametrize("options", [{"visibility": "private"}, {"password": "secret"}])
def test_one_that_may_not_be_read_is_told_to_nobody(family: Family, options: dict[str, str]) -> None:
    before = family.page(family.parent)
    child = family.share_child(None, **options)
    assert family.page(family.parent) == before
    assert child["id"] in links(family.page(family.parent, is_owner=True))


def test_a_private_session_is_not_told_by_its_sub_agents(server: RunningServer) -> None:
    family = Family(server)
    url = f"{server.url}/api/share/{family.parent['id']}"
    httpx.patch(url, json={"secret": family.parent["secret"], "visibility": "private"})
    assert links(family.page(family.share_child())) == set()


def test_a_share_of_somebody_else_with_that_session_is_not_linked(
    server: RunningServer, family: Family
) -> None:
    env = bare_environment(RPCSHARE_DATA_DIR=str(server.data_dir))
    made = subprocess.run(
        [RPCSHARE, "keys", "create", "other", "--scope", "create"],
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )
    key = re.search(r"rsk_\S+", made.stdout)
    assert key is not None, made.stderr
    before = family.page(family.parent)
    family.share_child(key[0])
    assert family.page(family.parent) == before


def test_one_that_is_deleted_is_linked_no_more(family: Family) -> None:
    child = family.share_child()
    url = f"{family.server.url}/api/share/{child['id']}"
    httpx.request("DELETE", url, json={"secret": child["secret"]})
    assert "The sub-agent's session" not in family.page(family.parent)

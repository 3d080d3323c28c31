"""Who may ask a model from within a sandbox, and who pays for it."""

from types import SimpleNamespace

import pytest
from sqlalchemy import insert, update

from rpcshare.agents.agent import Agent, AgentStatus, Budget, Spent
from rpcshare.agents.agents import Agents
from rpcshare.agents.model_sessions import WorkspaceModelSessions
from rpcshare.auth.subject_sources import owner_name, user_source
from rpcshare.database.records import users
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.gateway.metering import Usage
from rpcshare.workspaces.workspaces import Reach

ONE, TWO = "ses_one", "ses_two"
OWNER = owner_name(user_source("acme"), "usr_1")
ANYWHERE = Reach((), is_all=True)


def agent(session_id: str, **options) -> Agent:
    given = {"budget": Budget(), "spent": Spent(), "parent": None, "error": None, **options}
    return Agent(
        id=session_id,
        owner=OWNER,
        workspace="wsp_1",
        share_id=session_id,
        share_url="",
        status=AgentStatus.RUNNING,
        title="",
        model="acme/large",
        mode="",
        permission=(),
        created_at=1,
        last_active_at=1,
        **given,
    )


@pytest.fixture
async def agents(records):
    user: dict[str, object] = {
        "id": "usr_1",
        "organization": "acme",
        "role": "member",
        "role_from": "default",
        "email": "a@b.example",
    }
    user |= {"email_is_trusted": True, "name": "A", "avatar_url": "", "created_at": 1, "seen_at": 1}
    await records.write(lambda connection: connection.execute(insert(users), user))
    return Agents(records)


def sessions_of(agents: Agents, **roots: str) -> WorkspaceModelSessions:
    """Return those of a process that has these sessions, each with its root."""
    known = {f"ses_{name}": SimpleNamespace(root=SimpleNamespace(id=root)) for name, root in roots.items()}
    return WorkspaceModelSessions(agents, lambda: known)  # type: ignore[arg-type, return-value]


async def refusal(sessions: WorkspaceModelSessions, session_id: str | None, model: str = "acme/large") -> str:
    with pytest.raises(ShareError) as caught:
        await sessions.admit(session_id, model)
    assert caught.value.code is ErrorCode.FORBIDDEN
    return caught.value.message


async def test_a_sub_agent_spends_what_its_root_may(agents):
    await agents.add(agent(ONE, budget=Budget(tokens=100)), lambda edit: None)
    sessions = sessions_of(agents, one=ONE, child=ONE)
    assert (await sessions.admit("ses_child", "acme/large")).owner == OWNER
    await sessions.charge("ses_child", "acme/large", Usage(60, 50, cost=0.5))
    found = await agents.find(ONE, ANYWHERE)
    assert (found.spent.tokens, found.spent.dollars, found.status) == (110, 0.5, AgentStatus.PAUSED)
    assert "100 tokens is spent" in await refusal(sessions, ONE)


async def test_only_the_agents_own_model_is_asked(agents):
    await agents.add(agent(ONE), lambda edit: None)
    assert "uses acme/large" in await refusal(sessions_of(agents, one=ONE), ONE, "acme/other")


async def test_a_session_that_the_process_does_not_have_is_that_of_its_one_agent_or_of_none(agents):
    await agents.add(agent(ONE), lambda edit: None)
    await agents.add(agent(TWO), lambda edit: None)
    alone = sessions_of(agents, one=ONE)
    await alone.admit(None, "acme/large")
    await alone.charge(None, "acme/large", Usage(1))
    assert (await agents.find(ONE, ANYWHERE)).spent.input == 1
    assert "no such session" in await refusal(sessions_of(agents, one=ONE, two=TWO), "ses_three")


async def test_what_is_in_flight_is_charged_though_its_session_is_gone(agents):
    await agents.add(agent(ONE), lambda edit: None)
    known = {ONE: SimpleNamespace(root=SimpleNamespace(id=ONE))}
    sessions = WorkspaceModelSessions(agents, lambda: known)  # type: ignore[arg-type, return-value]
    await sessions.admit(ONE, "acme/large")
    known.clear()
    await sessions.charge(ONE, "acme/large", Usage(7))
    assert (await agents.find(ONE, ANYWHERE)).spent.input == 7


async def test_the_agent_of_a_user_who_was_disabled_asks_no_model(agents, records):
    await agents.add(agent(ONE), lambda edit: None)
    sessions = sessions_of(agents, one=ONE)
    await sessions.admit(ONE, "acme/large")
    await records.write(lambda connection: connection.execute(update(users).values(disabled_at=5)))
    assert "disabled" in await refusal(sessions, ONE)

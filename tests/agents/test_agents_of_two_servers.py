"""Two servers with one database, one bucket and one folder of workspaces: an agent is at hand at both."""

import asyncio

import pytest

import rpcshare
from agents.real_agents import BINARY
from agents.servers_of_agents import *  # noqa: F403 -- fixtures
from agents.servers_of_agents import two_servers, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="needs the opencode of tests/opencode"),
]


async def test_whatever_is_asked_of_the_other_server_is_done_by_the_one_that_runs_the_agent(
    tmp_path, model, bucket_url, postgres_url
):
    with two_servers(tmp_path, model, bucket_url, postgres_url) as (one, two):
        async with (
            rpcshare.connect(one.url, token=one.token) as here,
            rpcshare.connect(two.url, token=two.token) as there,
        ):
            workspace = (await here.workspaces().create({"name": "site"}).info())["id"]
            started = await here.agents().start(
                {"workspace": workspace, "prompt": "Plan [scenario:todo]", "permission": {"bash": "ask"}}
            )
            agent_id = (await started.info())["id"]
            await wait_for(one, agent_id, "idle")
            agent = there.agents().get(agent_id)
            assert [each["content"] for each in await agent.todo()] == ["Write it"]
            stream = await agent.watch()
            await agent.send("Do [scenario:ask]")
            async with asyncio.timeout(60):
                async for event in stream:
                    if event["type"] == "approval" and event["state"] == "asked":
                        await event["approval"].answer("once")
                    if event["type"] == "turn" and event["state"] == "ended":
                        break
            content = await there.workspaces().get(workspace).files().read("permitted.txt")
            assert content["content"] == "permitted\n"
            forked = await agent.fork()
            assert (await forked.info())["id"] != agent_id
            with pytest.raises(rpcshare.ShareError, match="no command"):
                await ended(await agent.watch(), await agent.command("nothing", ""))
            await agent.send("Wait [scenario:slow]")
            await wait_for(two, agent_id, "blocked")
            await agent.abort()
            await wait_for(two, agent_id, "idle", seconds=20)
            await agent.terminate()
            await wait_for(one, agent_id, "terminated", seconds=10)


async def ended(stream, sent) -> None:
    """Raise what the turn of a message has ended with."""
    async with asyncio.timeout(30):
        async for event in stream:
            if event["type"] == "turn" and event["state"] == "ended":
                assert event["messageID"] == sent["messageID"]
                raise rpcshare.ShareError(rpcshare.ErrorCode.INVALID_ARGUMENT, event.get("error", ""))

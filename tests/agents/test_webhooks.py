"""Webhooks: what is told, to whom, how often, and where never."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from rpcshare.agents.agent import Agent, AgentStatus
from rpcshare.agents.webhook_delivery import WebhookDelivery
from rpcshare.agents.webhooks import ATTEMPTS, Webhooks, check_url
from rpcshare.auth.caller import Caller
from rpcshare.errors import ShareError
from rpcshare.sandbox.egress_proxy import EgressPolicy
from support.agents_in_process import AgentWorld
from support.waiting import eventually

SECRET = "sk-ant-api03-" + "aB3" * 31 + "AA"


class Receiver:
    """A server that a webhook leads to."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.answers = [200]
        """The statuses, the last of which is that of all further requests."""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await self._answer(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        self.heard.append((headers, body))
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        writer.write(
            f"HTTP/1.1 {status} X\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n".encode()
        )
        await writer.drain()

    def told(self) -> list[Any]:
        return [json.loads(body) for _, body in self.heard]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    yield receiver
    server.close()


async def resolve(host: str, _port: int) -> Sequence[str]:
    return {"hook.example": ["127.0.0.1"], "meta.example": ["169.254.169.254"]}.get(host, ["10.0.0.1"])


def delivery(world: AgentWorld, receiver: Receiver) -> WebhookDelivery:
    policy = EgressPolicy(["*"], [f"hook.example:{receiver.port}", "meta.example"])
    world.services.webhook_policy = policy
    return WebhookDelivery(world.opened, policy, resolve=resolve, first_delay=0.01)


@pytest.fixture
async def running(world: AgentWorld, receiver: Receiver) -> AsyncIterator[WebhookDelivery]:
    running = delivery(world, receiver)
    world.services.wake_webhooks = running.wake
    running.start()
    yield running
    await running.close()


@pytest.fixture
def url(receiver: Receiver) -> str:
    return f"http://hook.example:{receiver.port}/agents?of=me"


async def settled(world: AgentWorld, alice: Caller, agent: Agent, status: AgentStatus) -> None:
    while (await world.of(alice).get(agent.id)).status is not status:  # noqa: ASYNC110 -- a row's
        await asyncio.sleep(0.01)


async def test_an_owner_is_told_that_an_agent_waits_and_that_it_is_done(world, alice, receiver, running, url):
    await world.of(alice).webhooks.set(url)
    agent = await world.start(alice, "ask", title=f"Build {SECRET}")
    await eventually(lambda: len(receiver.heard) == 1)
    [told] = receiver.told()
    assert told["type"] == "agent.blocked"
    assert told["data"]["agent"]["id"] == agent.id
    assert told["data"]["agent"]["url"] == f"{agent.share_url}?end=1#agent"
    assert [each["kind"] for each in told["data"]["requests"]] == ["approval"]
    assert SECRET.encode() not in receiver.heard[0][1]
    [request] = await world.of(alice).approvals(agent.id)
    await world.of(alice).answer(agent.id, request.id, "once")
    await eventually(lambda: len(receiver.heard) == 2)
    assert receiver.told()[1]["type"] == "agent.done"
    assert (await world.of(alice).webhooks.current()).delivered_at is not None


async def test_what_is_told_is_signed_as_standard_webhooks_are(world, alice, receiver, running, url):
    webhook = await world.of(alice).webhooks.set(url)
    await world.of(alice).webhooks.test()
    await eventually(lambda: len(receiver.heard) == 1)
    headers, body = receiver.heard[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(webhook.secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    # Names of headers were made lower case above, and so were their values.
    assert headers["webhook-signature"] == f"v1,{expected}".lower()
    assert json.loads(body)["type"] == "test"


async def test_nobody_else_is_told(world, alice, bob, receiver, running, url):
    await world.of(alice).webhooks.set(url)
    await settled(world, bob, await world.start(bob, "hello"), AgentStatus.IDLE)
    await world.of(alice).webhooks.test()
    await eventually(lambda: len(receiver.heard) == 1)
    assert [each["type"] for each in receiver.told()] == ["test"]


async def test_a_delivery_that_fails_is_tried_again_under_the_same_id(world, alice, receiver, url):
    waiting = delivery(world, receiver)
    receiver.answers = [500, 302, 200]
    await world.of(alice).webhooks.set(url)
    await world.of(alice).webhooks.test()
    webhooks = Webhooks(world.agents.database)
    problems = []
    while len(receiver.heard) < 3:
        await waiting.deliver_due(webhooks)
        problems.append((await world.of(alice).webhooks.current()).problem)
        await asyncio.sleep(0.02)
    assert list(dict.fromkeys(problems)) == ["it answered 500", "it answered 302", None]
    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 1
    await asyncio.sleep(0.1)
    await waiting.deliver_due(webhooks)
    assert len(receiver.heard) == 3


async def test_it_is_given_up_after_so_many_attempts(world, alice, receiver, url):
    policy = delivery(world, receiver)._policy
    waiting = WebhookDelivery(world.opened, policy, resolve=resolve, first_delay=0.0)
    receiver.answers = [503]
    await world.of(alice).webhooks.set(url)
    await world.of(alice).webhooks.test()
    for _ in range(ATTEMPTS + 3):
        await waiting.deliver_due(Webhooks(world.agents.database))
        await asyncio.sleep(0.005)
    assert len(receiver.heard) == ATTEMPTS


async def test_two_nodes_deliver_once(world, alice, receiver, url):
    nodes = [delivery(world, receiver), delivery(world, receiver)]
    await world.of(alice).webhooks.set(url)
    for _ in range(5):
        await world.of(alice).webhooks.test()
    await asyncio.gather(*(node.deliver_due(Webhooks(world.agents.database)) for node in nodes))
    assert len(receiver.heard) == 5
    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 5


@pytest.mark.parametrize("host", ["inside.example", "meta.example"])
async def test_a_name_of_a_private_address_is_never_connected_to(world, alice, receiver, host):
    """Even if it had another when it was entered; and no operator opens where clouds have metadata."""
    waiting = delivery(world, receiver)
    await world.of(alice).webhooks.set(f"https://{host}/")
    await world.of(alice).webhooks.test()
    await waiting.deliver_due(Webhooks(world.agents.database))
    problem = (await world.of(alice).webhooks.current()).problem
    assert problem == f"{host} has an address that is not of the public internet"


@pytest.mark.parametrize(
    "url",
    [
        "http://public.example/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://user:pass@public.example/",
        "https://public.example:22/",
        "https://public.example/#a",
        "https://*.example/",
        "ftp://public.example/",
        "file:///etc/passwd",
        "https://public.example/\r\nHost: x",
        "javascript:alert(1)",
        "",
        "https://" + "a" * 3000,
    ],
)
def test_where_nothing_may_be_delivered_is_refused(url):
    with pytest.raises(ShareError, match=r"^url: "):
        check_url(url, EgressPolicy(["*"]))


async def test_nothing_waits_without_a_webhook_or_after_its_end(world, alice, receiver, url):
    waiting = delivery(world, receiver)
    await settled(world, alice, await world.start(alice, "hello"), AgentStatus.IDLE)
    await world.of(alice).webhooks.set(url)
    await world.of(alice).webhooks.test()
    first = (await world.of(alice).webhooks.current()).secret
    assert (await world.of(alice).webhooks.set(f"{url}2")).secret == first
    await world.of(alice).webhooks.remove()
    assert await world.of(alice).webhooks.current() is None
    await waiting.deliver_due(Webhooks(world.agents.database))
    assert receiver.heard == []
    with pytest.raises(ShareError, match="there is none yet"):
        await world.of(alice).webhooks.test()

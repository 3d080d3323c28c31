"""What a key opened within somebody else's session, once that key is revoked: nothing answers any longer."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

import rpcshare
from access_matrix.deployments import Made
from access_matrix.operations import CALLS, Asked, Expression, Messages
from support.running_server import RunningServer

pytestmark = pytest.mark.slow  # a server of its own

# Who lets go of something needs no right to do so.
LETTING_GO = {"CallbackSubscription.unsubscribe"}


class HeldMessages(Messages):
    """Messages about what the key gave: the main target, and perhaps ``openShare`` and ``keys``."""

    def __init__(self, pushed: int, held: dict[str, int]) -> None:
        super().__init__()
        self._pushed = pushed
        self._held = held

    def call(self, method: str, *arguments: Expression, on: int = 0) -> int:
        if method in self._held and on == 0 and self.uses_held:
            return self._held[method]
        return super().call(method, *arguments, on=on or self._held["authenticate"])

    uses_held = True


class RevokedKey:
    """A session of Bob's in which Alice's key was used, and what it gave, before it was revoked."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.held: dict[str, int] = {}
        self.share = Made("", "")
        self.key = ""
        self.pushed = 0
        self.last_event: object = None

    async def push(self, method: str, *arguments: object, on: int = 0) -> int:
        await self.websocket.send(json.dumps(["push", ["pipeline", on, [method], list(arguments)]]))
        self.pushed += 1
        return self.pushed

    async def answer(self, number: int) -> list[object]:
        """Return what is said of call ``number``: ``["resolve", …]`` or ``["reject", …]``."""
        await self.websocket.send(json.dumps(["pull", number]))
        async with asyncio.timeout(10):
            while True:
                message = json.loads(await self.websocket.recv())
                match message:
                    case ["resolve" | "reject", answered, *_] if answered == number:
                        return message
                    case ["push", ["pipeline", -1, _, [event]]]:
                        self.last_event = event

    async def outcome(self, operation: str, *, uses_held: bool) -> list[object]:
        messages = HeldMessages(self.pushed, self.held)
        messages.uses_held = uses_held
        asked = Asked(self.share, self.share.secret, f"ses_{uuid4().hex}", self.key)
        number = CALLS[operation].make(messages, asked)
        lines = messages.pulling(number)
        for line in lines[:-1]:
            await self.websocket.send(line)
        self.pushed = messages._pushed
        return await self.answer(number)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def revoked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RevokedKey]:
    with RunningServer(tmp_path_factory.mktemp("revoked") / "data") as server:
        async with rpcshare.connect(server.url, token=server.token) as admin:
            keys = await admin.keys()
            alice = await keys.create("alice", {"scopes": ["admin"]})
            bob = await keys.create("bob")
            headers = {"Authorization": f"Bearer {bob['key']}"}
            url = f"{server.url.replace('http', 'ws', 1)}/rpc"
            async with connect(url, additional_headers=headers, proxy=None, max_size=None) as websocket:
                session = RevokedKey(websocket)
                session.key = alice["key"]
                main = session.held["authenticate"] = await session.push("authenticate", alice["key"])
                made = await session.push("createShare", f"ses_{uuid4().hex}", on=main)
                _, _, share = await session.answer(made)
                assert isinstance(share, dict)
                session.share = Made(share["id"], share["secret"])
                held = {
                    "openShare": (share["id"], share["secret"]),
                    "keys": (),
                    "subscribe": (share["id"], ["export", -1]),
                }
                for method, arguments in held.items():
                    number = session.held[method] = await session.push(method, *arguments, on=main)
                    assert (await session.answer(number))[0] == "resolve"
                await keys.revoke(alice["id"])
                async with asyncio.timeout(10):
                    said: list[object] = ["resolve"]
                    while said[0] == "resolve":
                        said = await session.answer(await session.push("listShares", on=main))
                        await asyncio.sleep(0.1)
                yield session


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("operation", "uses_held"),
    [
        *((operation, False) for operation in sorted(CALLS.keys() - LETTING_GO)),
        *((operation, True) for operation in sorted(CALLS) if operation.startswith(("Share.", "KeysRpc."))),
    ],
)
async def test_every_member_is_unauthorized(revoked: RevokedKey, operation: str, uses_held: bool) -> None:
    answer = await revoked.outcome(operation, uses_held=uses_held)
    assert answer[0] == "reject", answer
    error = answer[2]
    assert isinstance(error, list)
    assert error[4] == {"code": "UNAUTHORIZED"}


@pytest.mark.asyncio(loop_scope="module")
async def test_its_subscriptions_have_ended_and_say_why(revoked: RevokedKey) -> None:
    async with asyncio.timeout(10):
        while not (isinstance(revoked.last_event, dict) and revoked.last_event.get("type") == "error"):
            await revoked.answer(await revoked.push("whoami"))
    assert revoked.last_event["code"] == "UNAUTHORIZED"


@pytest.mark.asyncio(loop_scope="module")
async def test_whose_session_it_is_goes_on(revoked: RevokedKey) -> None:
    _, _, who = await revoked.answer(await revoked.push("whoami"))
    assert isinstance(who, dict)
    assert who["subject"] == "bob"

"""Pieces of pages: with which detail they are drawn, how often, and what of it is remembered."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from uuid import UUID

import httpx
import pytest
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.types import Message

from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import Caller, Scope
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.config import Settings
from rpcshare.render.pieces import Answer, Cause, Detail, PartPiece, Piece, Request
from rpcshare.server.app import create_app
from rpcshare.server.web.render_cache import KEPT, PAGE_CHARACTERS, PAGE_SECONDS, RenderCache
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage import MemoryStore
from support.asgi import http_scope

FULL, UNCOLOURED, PLAIN = Detail


class Drawer:
    """Answers as it is told, by body; keeps what it was asked for."""

    def __init__(self, answers: dict[bytes, Iterable[Answer]] | None = None) -> None:
        self.asked: list[tuple[bytes, Detail, Cause | None]] = []
        self.cancelled: list[bytes] = []
        self.is_asked = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self._answers = {body: iter(each) for body, each in (answers or {}).items()}

    async def draw(self, share_id: str, request: Request) -> Answer:
        body = request.piece.body
        self.asked.append((body, request.detail, request.cause))
        self.is_asked.set()
        try:
            await self.may_go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.append(body)
            raise
        if body in self._answers:
            return next(self._answers[body])
        return Answer(0.001, f"<p>{request.detail}</p>")


def piece(name: str) -> Piece:
    return PartPiece(name.encode(), name, "assistant", "", 0, "")


def omitted(_piece: Piece, cause: Cause) -> Markup:
    return Markup(f"omitted: {cause}")


def failing(cause: Cause, seconds: float = 0.1) -> Answer:
    return Answer(seconds, cause=cause)


async def test_what_takes_too_long_is_drawn_with_less_detail_until_it_is_quick() -> None:
    drawer = Drawer({b"a": [failing(Cause.TIME), failing(Cause.MEMORY), Answer(0.1, "plain")]})
    counted = []
    drawings = RenderCache(drawer, omitted, lambda *each: counted.append(each))
    drawn = await drawings.draw("share", [piece("a")])
    assert drawn.html[piece("a")] == "plain"
    assert drawn.is_final
    assert drawer.asked == [(b"a", FULL, None), (b"a", UNCOLOURED, Cause.TIME), (b"a", PLAIN, Cause.MEMORY)]
    assert counted == [(PLAIN, Cause.MEMORY)]


async def test_what_cannot_be_drawn_even_plain_is_left_out() -> None:
    drawer = Drawer({b"a": [failing(Cause.SIZE)] * 3})
    drawn = await RenderCache(drawer, omitted).draw("share", [piece("a"), piece("b")])
    assert list(drawn.html.values()) == ["omitted: size", "<p>full</p>"]


async def test_how_a_piece_must_be_drawn_is_remembered_by_its_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rpcshare.server.web.render_cache.KEPT", 0)  # nothing that is drawn is kept
    drawer = Drawer({b"a": [failing(Cause.TIME), Answer(0.1, "once"), Answer(0.1, "again")]})
    drawings = RenderCache(drawer, omitted)
    await drawings.draw("share", [piece("a")])
    del drawer.asked[:]
    drawn = await drawings.draw("share", [piece("a")])
    assert drawn.html[piece("a")] == "again"
    assert drawer.asked == [(b"a", UNCOLOURED, Cause.TIME)]


async def test_an_accident_is_tried_again_as_it_was() -> None:
    drawer = Drawer({b"a": [Answer(0.1, cause=Cause.ERROR, is_accident=True), Answer(0.1, "drawn")]})
    drawn = await RenderCache(drawer, omitted).draw("share", [piece("a")])
    assert drawn.html[piece("a")] == "drawn"
    assert [detail for _, detail, _ in drawer.asked] == [FULL, FULL]


@pytest.mark.parametrize(
    "answer",
    [Answer(PAGE_SECONDS / 2, "x"), Answer(0.0, "x" * (PAGE_CHARACTERS // 2))],
    ids=["time", "size"],
)
async def test_behind_what_the_page_may_take_pieces_are_plain_for_the_time_being(answer: Answer) -> None:
    names = ["a", "b", "c"]
    drawer = Drawer({b"a": [answer], b"b": [answer]})
    drawings = RenderCache(drawer, omitted)
    drawn = await drawings.draw("share", list(map(piece, names)))
    assert drawer.asked[-1] == (b"c", PLAIN, Cause.PAGE)
    assert not drawn.is_final
    if answer.seconds:
        again = await drawings.draw("share", list(map(piece, names)))
        assert drawer.asked[3:] == [(b"c", FULL, None)]
        assert again.is_final


async def test_once_that_is_spent_twice_nothing_more_is_drawn() -> None:
    drawer = Drawer({b"a": [Answer(2 * PAGE_SECONDS, "x")]})
    drawn = await RenderCache(drawer, omitted).draw("share", [piece("a"), piece("b")])
    assert drawn.html[piece("b")] == "omitted: page"
    assert [body for body, _, _ in drawer.asked] == [b"a"]


async def test_what_many_ask_for_at_once_is_drawn_once() -> None:
    drawer = Drawer()
    drawings = RenderCache(drawer, omitted)
    drawer.may_go_on.clear()
    tasks = [asyncio.create_task(drawings.draw("share", [piece("a"), piece("b")])) for _ in range(20)]
    await asyncio.sleep(0.01)
    tasks.pop().cancel()  # one that goes takes nothing from the others
    drawer.may_go_on.set()
    for drawn in await asyncio.gather(*tasks):
        assert list(drawn.html.values()) == ["<p>full</p>"] * 2
    assert [body for body, _, _ in drawer.asked] == [b"a", b"b"]


async def test_what_nobody_waits_for_any_more_is_given_up() -> None:
    drawer = Drawer()
    drawings = RenderCache(drawer, omitted)
    drawer.may_go_on.clear()
    tasks = [asyncio.create_task(drawings.draw("share", [piece("a"), piece("b")])) for _ in range(3)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(0.01)
    assert drawer.cancelled == [b"a"]
    drawer.may_go_on.set()
    assert (await drawings.draw("share", [piece("a")])).html[piece("a")] == "<p>full</p>"


async def test_what_is_kept_has_a_bound() -> None:
    large = "x" * (KEPT // 3)
    names = [str(number) for number in range(4)]
    drawer = Drawer({name.encode(): [Answer(0.0, large)] * 2 for name in names})
    drawings = RenderCache(drawer, omitted)
    for name in [*names, names[-1], names[0]]:
        await drawings.draw("share", [piece(name)])
    assert [body for body, _, _ in drawer.asked] == [b"0", b"1", b"2", b"3", b"0"]


# Over HTTP

OWNER = Caller("alice", frozenset({Scope.CREATE}))


@pytest.fixture
async def service() -> AsyncIterator[ShareService]:
    service = ShareService(
        MemoryStore(), LocalBroadcaster(), Credentials(UUID(int=7), "http://share.example")
    )
    yield service
    await service.close()


@pytest.fixture
async def share_id(service: ShareService) -> str:
    credentials = await service.create(OWNER, "ses_drawings_01")
    parts = [
        {"type": "part", "data": {"id": each, "messageID": "m", "type": "text", "text": each}}
        for each in "ab"
    ]
    await service.sync(OWNER, credentials.id, None, parts)
    return credentials.id


@pytest.fixture
async def app(service: ShareService) -> AsyncIterator[Starlette]:
    app, connections = create_app(Settings(), service, Authenticator([]), "http://share.example")
    yield app
    await connections.close()


def draw_with(app: Starlette, drawer: Drawer) -> None:
    app.state.pages.pieces = RenderCache(drawer, omitted)


async def test_a_page_that_will_look_better_next_time_is_not_kept_by_browsers(
    app: Starlette, share_id: str
) -> None:
    class Slow(Drawer):
        async def draw(self, share_id: str, request: Request) -> Answer:
            return Answer(PAGE_SECONDS, "slow")

    draw_with(app, Slow())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://share.example") as client:
        first = await client.get(f"/share/{share_id}")
        again = await client.get(f"/share/{share_id}")
    assert "etag" not in first.headers
    assert first.headers["cache-control"] == "no-store"
    assert "etag" in again.headers


async def test_a_client_that_goes_takes_its_drawing_with_it(app: Starlette, share_id: str) -> None:
    drawer = Drawer()
    drawer.may_go_on.clear()
    draw_with(app, drawer)
    messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await drawer.is_asked.wait()
        return {"type": "http.disconnect"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(http_scope("GET", f"/share/{share_id}"), receive, send)
    await asyncio.sleep(0.01)
    assert len(drawer.cancelled) == 1
    assert sent[0]["status"] == 499
    assert len(app.state.pages.drawings) == 0

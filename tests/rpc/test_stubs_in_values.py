"""A stub of the peer's within a value that is here: read, pulled, called, mapped and passed on."""

import asyncio

import pytest
from transcript import BareSession, Counter, Pair, awaiting, call

from rpcshare.rpc import Promise, RpcTarget, Stub, rpc_method


class Echo(RpcTarget):
    @rpc_method("echo(value)")
    def echo(self, value: object) -> object:
        return value


@pytest.fixture
def echo() -> BareSession:
    """Return a session that has echoed ``{"c": stub, "deep": [{"c": stub}]}`` as the peer's result 1."""
    session = BareSession(Echo())
    session.exchange(call("echo", args=[{"c": ["export", -1], "deep": [[{"c": ["export", -2]}]]}]))
    return session


PATHS = [(["c"], -1), (["deep", 0, "c"], -2)]


class TestAPropertyThatIsAStubOfThePeer:
    @pytest.mark.parametrize(("path", "number"), PATHS)
    def test_is_sent_to_the_peer_that_pulls_it(
        self, echo: BareSession, path: list[str | int], number: int
    ) -> None:
        answers = echo.exchange(["push", ["pipeline", 1, path]], ["pull", 2])
        assert answers == [["resolve", 2, ["import", number]]]

    @pytest.mark.parametrize(("path", "number"), PATHS)
    def test_may_be_pulled_by_a_push_of_a_push(
        self, echo: BareSession, path: list[str | int], number: int
    ) -> None:
        answers = echo.exchange(
            ["push", ["pipeline", 1, path]],
            ["push", ["pipeline", 2]],
            ["push", {"again": ["pipeline", 3]}],
            ["pull", 4],
        )
        assert answers == [["resolve", 4, {"again": ["import", number]}]]

    @pytest.mark.parametrize(("path", "number"), PATHS)
    def test_takes_the_place_of_a_promise_among_arguments(
        self, echo: BareSession, path: list[str | int], number: int
    ) -> None:
        answers = echo.exchange(call("echo", args=[[[["pipeline", 1, path], 7]]]), ["pull", 2])
        assert answers == [["resolve", 2, [[["import", number], 7]]]]

    @pytest.mark.parametrize(("path", "number"), PATHS)
    def test_is_called_where_it_is(self, echo: BareSession, path: list[str | int], number: int) -> None:
        answers = echo.exchange(["push", ["pipeline", 1, path, [5]]], ["pull", 2])
        assert answers == [["push", ["pipeline", number, [], [5]]], ["pull", 1]]
        echo.feed(["resolve", 1, 6])
        assert echo.sent() == [["release", 1, 1], ["resolve", 2, 6]]

    @pytest.mark.parametrize(("path", "number"), PATHS)
    def test_has_its_properties_read_where_it_is(
        self, echo: BareSession, path: list[str | int], number: int
    ) -> None:
        answers = echo.exchange(["push", ["pipeline", 1, [*path, "size"]]], ["pull", 2])
        assert answers == [["push", ["pipeline", number, ["size"]]], ["pull", 1]]

    @pytest.mark.parametrize(("path", "number"), PATHS)
    def test_is_mapped_where_it_is(self, echo: BareSession, path: list[str | int], number: int) -> None:
        answers = echo.exchange(["push", ["remap", 1, path, [], [["pipeline", 0, ["size"]]]]], ["pull", 2])
        assert answers == [
            ["push", ["remap", number, [], [], [["pipeline", 0, ["size"]]]]],
            ["resolve", 2, ["pipeline", 1]],
        ]

    def test_is_read_by_a_mapper_function(self, echo: BareSession) -> None:
        answers = echo.exchange(["push", ["remap", 1, ["deep"], [], [["pipeline", 0, ["c"]]]]], ["pull", 2])
        assert answers == [["resolve", 2, [[["import", -2]]]]]

    def test_is_called_by_a_mapper_function(self, echo: BareSession) -> None:
        mapped = ["remap", 1, ["deep"], [], [["pipeline", 0, ["c"], [["pipeline", 0, ["c"]]]]]]
        answers = echo.exchange(["push", mapped])
        assert answers[0] == ["push", ["pipeline", -2, [], [["import", -2]]]]

    def test_is_asked_for_no_value(self, echo: BareSession) -> None:
        # It is no promise, and nobody answers the pull of one.
        echo.feed(["push", ["pipeline", 1, ["c"]]], ["pull", 2], call("echo", args=[["pipeline", 2]]))
        echo.carry_out()
        assert not any(message[0] == "pull" for message in echo.sent())

    def test_leaves_nothing_behind(self, echo: BareSession) -> None:
        echo.exchange(["push", ["pipeline", 1, ["c"]]], ["pull", 2], ["release", 1, 1])
        assert sorted(echo.exchange(["release", 2, 1])) == [["release", -1, 1]]
        assert echo.session.stats().imports == 1


class TestAPropertyOfAResult:
    """The same, as the caller sees it."""

    async def test_is_a_stub_once_the_result_is_here(self) -> None:
        client = BareSession()
        promise = client.main.get()
        result = await awaiting(promise)
        client.feed(["resolve", 1, {"f": ["export", -1], "more": {"g": ["export", -2]}}])
        await result
        async with asyncio.timeout(5):
            f, g = await promise.f, await promise.more.g
        client.sent()
        f(1), g(2)
        pushes = [message for message in client.sent() if message[0] == "push"]
        assert pushes == [["push", ["pipeline", -1, [], [1]]], ["push", ["pipeline", -2, [], [2]]]]

    async def test_is_passed_on_as_that_stub(self) -> None:
        client = BareSession()
        promise = client.main.get()
        result = await awaiting(promise)
        client.feed(["resolve", 1, {"f": ["export", -1]}])
        await result
        client.sent()
        client.main.g(promise.f, {"deep": promise.f})
        assert client.sent()[0] == [
            "push",
            ["pipeline", 0, ["g"], [["import", -1], {"deep": ["import", -1]}]],
        ]

    async def test_is_passed_on_as_that_stub_by_a_mapper_function(self) -> None:
        client = BareSession()
        promise = client.main.get()
        result = await awaiting(promise)
        client.feed(["resolve", 1, {"f": ["export", -1]}])
        await result
        client.sent()
        client.main.list().map(lambda item: client.main.g(item, promise.f))
        assert client.sent()[1][1][3:] == [
            [["import", -1], ["import", 0]],
            [["pipeline", -2, ["g"], [["pipeline", 0], ["import", -1]]], ["pipeline", 1]],
        ]

    async def test_arrives_whole_when_the_result_goes_through_another_call(self) -> None:
        pair = Pair(None, Echo())
        counter = Counter(5)
        first = pair.client.main.echo({"c": counter, "list": [counter]})
        waiting = [
            await awaiting(promise)
            for promise in (
                first.c,
                first["list"][0],
                pair.client.main.echo(first.c),
                pair.client.main.echo({"again": first}),
                pair.client.main.echo(pair.client.main.echo(first).c),
            )
        ]
        pair.settle()
        async with asyncio.timeout(5):
            values = await asyncio.gather(*waiting)
        assert all(isinstance(value, Stub) for value in (*values[:3], values[4]))
        assert isinstance(values[3]["again"]["c"], Stub)


class TestASettledPromise:
    async def settled(self, client: BareSession, value: object) -> Promise:
        promise = client.main.make()
        result = await awaiting(promise)
        client.feed(["resolve", 1, value])
        await result
        client.sent()
        return promise

    async def test_of_a_stub_is_encoded_as_the_stub(self) -> None:
        client = BareSession()
        promise = await self.settled(client, ["export", -1])
        client.main.use(promise)
        assert client.sent()[0] == ["push", ["pipeline", 0, ["use"], [["import", -1]]]]

    async def test_of_a_target_of_this_side_is_encoded_as_that(self) -> None:
        client = BareSession()
        with client.main.f(Counter()):
            client.feed(["push", ["import", -1]])
            client.sent()
        promise = client.main.make()
        result = await awaiting(promise)
        client.feed(["resolve", 2, {"mine": ["import", -1]}])
        await result
        client.sent()
        client.main.use(promise.mine)
        assert client.sent()[0] == ["push", ["pipeline", 0, ["use"], [["export", -2]]]]

    async def test_of_another_value_is_sent_with_its_value_to_follow(self) -> None:
        client = BareSession()
        promise = await self.settled(client, {"limit": 5})
        client.main.use(promise.limit)
        assert client.sent()[:2] == [
            ["push", ["pipeline", 0, ["use"], [["promise", -1]]]],
            ["resolve", -1, 5],
        ]

    async def test_of_a_stub_goes_to_another_session_as_an_export(self) -> None:
        client, other = BareSession(), BareSession()
        promise = await self.settled(client, ["export", -1])
        other.main.use(promise)
        assert other.sent() == [["push", ["pipeline", 0, ["use"], [["export", -1]]]], ["release", 1, 1]]
        assert other.exchange(["push", ["pipeline", -1, ["run"], [3]]]) == []
        assert client.sent() == [["push", ["pipeline", -1, ["run"], [3]]]]

    async def test_of_a_stub_that_was_disposed_of_fails_who_waits_for_it_and_nobody_else(self) -> None:
        client = BareSession()
        promise = client.main.make()
        result = await awaiting(promise)
        client.feed(["resolve", 1, {"f": ["export", -1]}])
        (await result)["f"].dispose()
        client.sent()
        client.main.use(promise.f)
        assert client.session.closed is None
        assert ["reject", -1, ["error", "Error", "this stub has been disposed of"]] in client.sent()

"""What a peer may chain as long as it likes harms nobody: neither the interpreter's stack nor C's."""

import gc
from collections.abc import Callable

import pytest
from transcript import BareSession, awaiting

from rpcshare.rpc import Limits, Promise, RpcError, RpcTarget, SessionClosedError, Stub, rpc_method

pytestmark = pytest.mark.slow

# Compiled code crashes somewhere between 10,000 and 100,000 calls within calls, Python gives up at 1,000.
LENGTH = 50_000

UNLIMITED = Limits(exports=0, calls_in_flight=0)


class Echo(RpcTarget):
    """Gives back what it gets."""

    def __init__(self) -> None:
        self.kept: list[Stub] = []
        self.disposals = 0

    @rpc_method("echo(value)")
    def echo(self, value: object) -> object:
        return value

    @rpc_method("fail(value)")
    def fail(self, value: object) -> object:
        raise RpcError("no")

    @rpc_method("ask(function)")
    def ask(self, function: Stub) -> Promise:
        """Yields a promise of what the peer's function will return."""
        return function()

    @rpc_method("askForPart(function)")
    def ask_for_part(self, function: Stub) -> Promise:
        """Yields a promise of a property of what the peer's function will return."""
        return function().part

    @rpc_method("askInList(function)")
    def ask_in_list(self, function: Stub) -> list[Promise]:
        """Yields a list with a promise of what the peer's function will return."""
        return [function()]

    @rpc_method("makeHolder(stub?)")
    def make_holder(self, stub: Stub | None = None) -> "Holder":
        return Holder(self, stub)

    @rpc_method("keep(stub)")
    def keep(self, stub: Stub) -> None:
        self.kept.append(stub.dup())

    def dispose(self) -> None:
        self.disposals += 1


class Holder(RpcTarget):
    """Keeps a stub, and lets go of it when it is let go of itself."""

    def __init__(self, maker: Echo, stub: Stub | None) -> None:
        self.maker = maker
        self.stub = stub.dup() if stub is not None else None

    def dispose(self) -> None:
        self.maker.disposals += 1
        if self.stub is not None:
            self.stub.dispose()


def call(number: int, name: str, *arguments: object) -> list[object]:
    return ["push", ["pipeline", number, [name], list(arguments)]]


def chain_of_imports(session: BareSession, length: int, last: object) -> None:
    """Answer the first call of ``session`` with a promise of a promise, and so on, at last of ``last``."""
    session.session.receive(["resolve", 1, ["promise", -1]])
    for number in range(1, length):
        session.session.receive(["resolve", -number, ["promise", -number - 1]])
    session.session.receive(["resolve", -length, last])


class TestCallsThatWaitForEachOther:
    @pytest.mark.parametrize("name", ["echo", "fail"])
    def test_all_get_their_outcome(self, name: str) -> None:
        server = BareSession(Echo(), limits=UNLIMITED)
        server.session.receive(call(0, name, 1))
        for number in range(1, LENGTH):
            server.session.receive(call(0, "echo", ["pipeline", number]))
        server.session.receive(["pull", LENGTH])
        server.carry_out()
        [(kind, number, *_)] = server.sent()
        assert (kind, number) == ("resolve" if name == "echo" else "reject", LENGTH)

    def test_all_fail_with_the_session(self) -> None:
        server = BareSession(Echo(), limits=UNLIMITED)
        for number in range(LENGTH):
            server.session.receive(call(number, "echo", ["pipeline", number]))
        server.session.receive(["abort", "gone"])
        assert server.session.stats().calls_in_flight == 0

    def test_are_let_go_of_one_by_one(self) -> None:
        server = BareSession(Echo(), limits=UNLIMITED)
        server.session.receive(call(0, "echo", 1))
        for number in range(1, LENGTH):
            server.session.receive(call(0, "echo", ["pipeline", number]))
        for number in range(1, LENGTH + 1):
            server.session.receive(["release", number, 1])
        server.carry_out()
        server.sent()
        assert server.session.stats().exports == 1
        assert server.session.closed is None


class TestPromisesOfPromises:
    async def test_are_waited_for_up_to_a_bound(self) -> None:
        client = BareSession()
        value = await awaiting(client.main.f())
        chain_of_imports(client, 50, "here")
        assert await value == "here"

    async def test_fail_above_it_as_they_come(self) -> None:
        client = BareSession()
        value = await awaiting(client.main.f())
        chain_of_imports(client, LENGTH, "here")
        with pytest.raises(RpcError, match="nested too deeply"):
            await value
        assert client.session.closed is None

    async def test_fail_above_it_when_all_have_come(self) -> None:
        client = BareSession()
        promise = client.main.f()
        chain_of_imports(client, LENGTH, "here")
        with pytest.raises(RpcError, match="nested too deeply"):
            await promise

    def test_of_any_length_lead_a_call_to_where_it_belongs(self) -> None:
        client = BareSession()
        promise = client.main.f()
        client.sent()
        chain_of_imports(client, LENGTH, ["export", -LENGTH - 1])
        client.sent()
        promise.greet("you")
        promise.part.greet("you")
        assert [message for message in client.sent() if message[0] == "push"] == [
            ["push", ["pipeline", -LENGTH - 1, ["greet"], ["you"]]],
            ["push", ["pipeline", -LENGTH - 1, ["part", "greet"], ["you"]]],
        ]

    def test_of_any_length_are_disposed_of(self) -> None:
        client = BareSession()
        promise = client.main.f()
        chain_of_imports(client, LENGTH, ["export", -LENGTH - 1])
        client.sent()
        promise.dispose()
        assert client.sent() == [["release", -LENGTH - 1, 1]]
        assert client.session.stats().imports == 1

    def test_of_any_length_are_collected(self) -> None:
        client = BareSession()
        promise = client.main.f()
        chain_of_imports(client, LENGTH, ["export", -LENGTH - 1])
        client.sent()
        del promise
        gc.collect()
        assert client.sent() == [["release", -LENGTH - 1, 1]]

    def test_of_any_length_break_with_the_session(self) -> None:
        client = BareSession()
        promise = client.main.f()
        heard: list[Exception] = []
        chain_of_imports(client, LENGTH, ["export", -LENGTH - 1])
        promise.on_broken(heard.append)
        client.session.receive(["abort", ["error", "Error", "enough"]])
        assert [str(error) for error in heard] == ["the peer ended the session: enough"]

    async def test_that_both_sides_made_in_turn_have_the_same_bound(self) -> None:
        # Call n yields a promise of what function n of the peer returns: the result of call n + 1.
        server = BareSession(Echo(), limits=UNLIMITED)
        for number in range(1, LENGTH + 1):
            server.session.receive(call(0, "ask", ["export", -number]))
            server.carry_out()
            asked = [message for message in server.sent() if message[0] == "push"]
            assert len(asked) == 1
        server.session.receive(call(0, "echo", "here"))
        for number in range(LENGTH, 0, -1):
            server.session.receive(["resolve", number, ["pipeline", number + 1]])
        server.carry_out()
        server.session.receive(["pull", 1])
        server.carry_out()
        [answer] = [message for message in server.sent() if message[0] == "reject"]
        assert answer[:2] == ["reject", 1]
        assert "nested too deeply" in answer[2][2]
        assert server.session.closed is None

    def test_of_any_length_are_walked_along_once(self) -> None:
        server = BareSession(Echo(), limits=UNLIMITED)
        server.session.receive(["push", ["promise", -1]])
        for number in range(1, LENGTH):
            server.session.receive(["resolve", -number, ["promise", -number - 1]])
        server.session.receive(["resolve", -LENGTH, ["pipeline", 0]])
        server.sent()
        for number in range(3):
            server.session.receive(call(1, "echo", number))
        server.carry_out()
        server.sent()
        gc.collect()
        assert sum(type(item) is Promise for item in gc.get_objects()) < LENGTH / 10
        assert server.exchange(["pull", 3], ["pull", 4]) == [["resolve", 3, 1], ["resolve", 4, 2]]

    def test_each_in_a_list_are_all_told_to_the_peer(self) -> None:
        length = 5_000
        server = BareSession(Echo(), limits=UNLIMITED)
        for number in range(1, length + 1):
            server.session.receive(call(0, "askInList", ["export", -number]))
            server.carry_out()
        server.session.receive(call(0, "echo", "here"))
        server.carry_out()
        for number in range(length, 0, -1):
            server.session.receive(["resolve", number, [[["pipeline", number + 1]]]])
        server.sent()
        server.session.receive(["pull", 1])
        answers = server.sent()
        assert {answer[0] for answer in answers} == {"resolve"}
        assert answers[-1][2] == "here"
        assert len(answers) == 2 * length + 1


class TestPromisesOfThemselves:
    @pytest.fixture(params=[1, 2, 1_000], ids=lambda length: f"by way of {length}")
    def server(self, request: pytest.FixtureRequest) -> BareSession:
        """Return a session whose export 1 stands for a promise that stands for export 1, over some others."""
        length: int = request.param
        server = BareSession(Echo())
        server.feed(*[["push", ["promise", -number]] for number in range(1, length + 1)])
        server.feed(*[["resolve", -number, ["pipeline", number + 1]] for number in range(1, length)])
        server.feed(["resolve", -length, ["pipeline", 1]])
        server.sent()
        return server

    @pytest.mark.parametrize(
        "expression",
        [
            ["pipeline", 1, ["echo"], [1]],
            ["pipeline", 1, ["name"]],
            ["remap", 1, ["rows"], [], [["pipeline", 0]]],
        ],
        ids=["called", "read", "mapped"],
    )
    def test_fail_who_uses_them(self, server: BareSession, expression: list[object]) -> None:
        server.feed(["push", expression])
        number = server.session.exports.add_pushed(server.session.near(print).retain()) - 1
        error = ["error", "Error", "a promise stands for itself"]
        assert server.exchange(["pull", number]) == [["reject", number, error]]

    def test_fail_who_waits_for_them(self, server: BareSession) -> None:
        [answer] = server.exchange(["pull", 1])
        assert answer[:2] == ["reject", 1]

    def test_are_broken(self, server: BareSession) -> None:
        heard: list[Exception] = []
        server.session.exports.reference(1).on_broken(heard.append)
        assert [str(error) for error in heard] == ["a promise stands for itself"]

    def test_fail_who_uses_them_however_their_path_grows(self) -> None:
        server = BareSession(Echo())
        server.exchange(call(0, "askForPart", ["export", -1]))
        server.feed(["resolve", 1, ["pipeline", 1]])
        error = ["error", "Error", "a promise stands for itself"]
        assert server.exchange(call(1, "echo"), ["pull", 2])[-1] == ["reject", 2, error]


def send_all(side: BareSession) -> None:
    """Have the peer take what is sent, as long as there is more."""
    while side.session.waits_for_room:
        side.session.take_output()
        side.session.tell_of_room()


class TestPromisesInPairs:
    """Each stands for a list of the one before, twice: there are more than can be counted in the last."""

    @staticmethod
    def doubled(times: int) -> BareSession:
        server = BareSession(Echo())
        server.feed(["push", 1])
        for number in range(1, times):
            server.feed(["push", [[["pipeline", number], ["pipeline", number]]]])
        return server

    def test_end_the_session_that_asks_for_all_of_them(self) -> None:
        server = self.doubled(50)
        server.feed(["pull", 50])
        send_all(server)
        assert str(server.session.closed) == "limit exceeded: exports held by the peer (at most 65,536)"

    def test_end_the_session_that_streams_them(self) -> None:
        server = self.doubled(50)
        server.feed(["stream", ["pipeline", 50]])
        send_all(server)
        assert str(server.session.closed) == "limit exceeded: exports held by the peer (at most 65,536)"

    def test_fail_the_call_that_is_given_them(self) -> None:
        server = self.doubled(50)
        answers = server.exchange(call(0, "echo", ["pipeline", 50]), ["pull", 51])
        error = "limit exceeded: values copied at once (at most 500,000)"
        assert answers == [["reject", 51, ["error", "Error", error, None, {"code": "PAYLOAD_TOO_LARGE"}]]]
        assert server.session.stats().calls_in_flight == 0

    def test_are_delivered_where_they_are_few(self) -> None:
        server = self.doubled(3)
        answers = server.exchange(call(0, "echo", ["pipeline", 3]), ["pull", 4])
        assert answers == [["resolve", 4, [[[[1, 1]], [[1, 1]]]]]]


class TestPipes:
    LENGTH = 5_000

    def within_each_other(self) -> BareSession:
        """Return a session in which what is written to each pipe is the next one."""
        server = BareSession(Echo())
        server.feed(*[["pipe"]] * self.LENGTH)
        for number in range(self.LENGTH - 1, 0, -1):
            server.feed(["push", ["pipeline", number, ["write"], [["readable", number + 1]]]])
        return server

    def that_wait_for_each_other(self) -> BareSession:
        """Return a session in which what is written to each pipe is how writing to the one before went."""
        server = BareSession(Echo())
        server.feed(*[["pipe"]] * self.LENGTH)
        server.feed(["push", ["pipeline", 1, ["write"], [1]]])
        for number in range(2, self.LENGTH + 1):
            written = ["pipeline", self.LENGTH + number - 1]
            server.feed(["push", ["pipeline", number, ["write"], [written]]])
        server.feed(["pull", 2 * self.LENGTH])
        return server

    def test_within_each_other_break_off_together(self) -> None:
        server = self.within_each_other()
        innermost = self.LENGTH
        server.feed(["release", 1, 1])
        server.feed(["push", ["pipeline", innermost, ["write"], [1]]], ["pull", 2 * self.LENGTH])
        assert server.sent() == [["reject", 2 * self.LENGTH, ["error", "Error", "the reader has gone"]]]
        assert server.session.closed is None

    def test_that_wait_for_each_other_break_off_together(self) -> None:
        server = self.that_wait_for_each_other()
        server.feed(["push", ["pipeline", 1, ["abort"], [["error", "Error", "no"]]]])
        assert server.sent() == [["reject", 2 * self.LENGTH, ["error", "Error", "no"]]]
        assert server.session.closed is None

    def test_of_blobs_that_wait_for_each_other_break_off_together(self) -> None:
        server = self.that_wait_for_each_other()
        for number in range(self.LENGTH, 0, -1):
            server.feed(["push", ["blob", "text/plain", ["readable", number]]])
        [(kind, number, _)] = server.sent()
        assert (kind, number) == ("reject", 2 * self.LENGTH)
        assert server.session.closed is None

    @pytest.mark.parametrize("made", [within_each_other, that_wait_for_each_other])
    def test_end_with_the_session_which_lets_go_of_everything(
        self, made: Callable[["TestPipes"], BareSession]
    ) -> None:
        holder = Echo()
        server = made(self)
        server.session.exports.add_pushed(server.session.near(holder).retain())
        server.session.close(SessionClosedError("over"))
        assert holder.disposals == 1


class TestTargets:
    LENGTH = 5_000

    @pytest.mark.parametrize("last", [["release", LENGTH, 1], ["abort", "gone"]])
    def test_that_hold_each_other_are_all_disposed_of(self, last: list[object]) -> None:
        maker = Echo()
        server = BareSession(maker)
        server.exchange(call(0, "makeHolder"))
        for number in range(1, self.LENGTH):
            server.exchange(call(0, "makeHolder", ["import", number]), ["release", number, 1])
        maker.disposals = 0
        server.exchange(last)
        assert maker.disposals in (self.LENGTH, self.LENGTH + 1)  # with the session, its main target goes too


class TestErrors:
    def test_in_groups_of_groups_reach_the_caller_as_one(self) -> None:
        class Failing(RpcTarget):
            @rpc_method("fail()")
            def fail(self) -> None:
                error: Exception = RpcError("no")
                for _ in range(LENGTH):
                    error = ExceptionGroup("more", [error])
                raise error

        [answer] = BareSession(Failing()).exchange(call(0, "fail"), ["pull", 1])
        assert answer[:2] == ["reject", 1]
        assert "nested too deeply" in answer[2][2]


class TestValues:
    def test_that_hold_themselves_fail_that_call_alone(self) -> None:
        class Knot(RpcTarget):
            @rpc_method("tie()")
            def tie(self) -> object:
                knot: list[object] = []
                knot.append(knot)
                return knot

        server = BareSession(Knot())
        answers = server.exchange(
            call(0, "tie"), ["push", ["pipeline", 1, [0], []]], ["pull", 2], ["pull", 1]
        )
        assert [answer[:2] for answer in answers] == [["reject", 2], ["reject", 1]]
        server.feed(["release", 1, 1], ["release", 2, 1])
        assert server.session.closed is None

    def test_that_are_nested_deeply_are_given_up_unsent(self) -> None:
        holder = Echo()

        class Deep(RpcTarget):
            @rpc_method("make()")
            def make(self) -> object:
                value: object = holder
                for _ in range(LENGTH):
                    value = [value]
                return value

        server = BareSession(Deep())
        server.exchange(call(0, "make"), ["release", 1, 1])
        assert holder.disposals == 1

"""What a peer may chain as long as it likes harms nobody: neither the interpreter's stack nor C's."""

import gc

import pytest
from transcript import BareSession, awaiting

from rpcshare.rpc import Limits, Promise, RpcError, RpcTarget, Stub, rpc_method

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

    @rpc_method("keep(stub)")
    def keep(self, stub: Stub) -> None:
        self.kept.append(stub.dup())

    def dispose(self) -> None:
        self.disposals += 1


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

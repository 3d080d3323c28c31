"""The targets among the arguments of a call that reaches nobody: each is disposed of, once."""

from collections.abc import Callable

import pytest
from transcript import Api, BareSession, Counter, awaiting, call

import rpcshare.rpc
from rpcshare.rpc import DisposedError, EncodeError, RpcError, SessionClosedError, Stub, notify


class Kept(Counter):
    """A target that its owner keeps: another is passed in its place."""

    def __init__(self) -> None:
        super().__init__(1)
        self.made: list[Counter] = []

    def dup(self) -> Counter:
        self.made.append(Counter(1))
        return self.made[-1]


def closed(client: BareSession) -> Stub:
    client.session.close(SessionClosedError("over"))
    return client.main


def result_of_a_closed_session(client: BareSession) -> Stub:
    result = client.main.get()
    client.session.close(SessionClosedError("over"))
    return result


BROKEN: dict[str, Callable[[BareSession], Stub]] = {
    "a closed session": closed,
    "a property of a closed session": lambda client: closed(client).deep.er,
    "a result of a closed session": result_of_a_closed_session,
}


@pytest.fixture
def client() -> BareSession:
    return BareSession()


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
class TestTheTargetsPassedToWhatIsBroken:
    def test_are_disposed_of(self, client: BareSession, broken: Callable[[BareSession], Stub]) -> None:
        stub = broken(client)
        targets = [Counter(), Counter()]
        stub(targets[0], {"deep": [targets[1], targets[1]]})
        assert [target.disposals for target in targets] == [1, 1]

    def test_are_disposed_of_when_nobody_waits_for_a_result(
        self, client: BareSession, broken: Callable[[BareSession], Stub]
    ) -> None:
        stub, target = broken(client), Counter()
        settled: list[Exception | None] = []
        notify(stub, (target,), settled.append)
        assert target.disposals == 1
        assert [type(error) for error in settled] == [SessionClosedError]

    def test_stay_their_owner_s_if_they_have_a_dup(
        self, client: BareSession, broken: Callable[[BareSession], Stub]
    ) -> None:
        stub, kept = broken(client), Kept()
        stub(kept)
        assert kept.disposals == 0
        assert [made.disposals for made in kept.made] == [1] * len(kept.made)

    def test_stay_their_owner_s_if_stubs_of_them_are_passed(
        self, client: BareSession, broken: Callable[[BareSession], Stub]
    ) -> None:
        stub = broken(client)
        other = BareSession()
        passed = other.main.get()
        stub(passed)
        passed.dispose()
        assert other.sent() == [["push", ["pipeline", 0, ["get"], []]], ["release", 1, 1]]


class TestTheTargetsOfACallThatCannotBeSent:
    def test_are_disposed_of(self, client: BareSession) -> None:
        before, after, duplicated = Counter(), Counter(), Kept()
        with pytest.raises(EncodeError):
            client.main.f(before, duplicated, object(), after)
        assert (before.disposals, after.disposals, duplicated.disposals) == (1, 1, 0)
        assert [made.disposals for made in duplicated.made] == [1]
        assert client.session.stats().exports == 1

    def test_are_disposed_of_when_nobody_waits_for_a_result(self, client: BareSession) -> None:
        before, after = Counter(), Counter()
        with pytest.raises(EncodeError):
            notify(client.main.f, (before, object(), after), lambda _error: None)
        assert (before.disposals, after.disposals) == (1, 1)

    def test_are_disposed_of_when_a_stub_among_the_arguments_was(self, client: BareSession) -> None:
        before, after, gone = Counter(), Counter(), client.main.dup()
        gone.dispose()
        with pytest.raises(DisposedError):
            client.main.f(before, gone, after)
        assert (before.disposals, after.disposals) == (1, 1)

    def test_are_kept_while_something_else_of_the_session_refers_to_them(self, client: BareSession) -> None:
        target = Counter()
        client.main.keep(target)
        with pytest.raises(EncodeError):
            client.main.f(target, object())
        assert target.disposals == 0
        client.exchange(["release", -1, 1])
        assert target.disposals == 1


class TestTheTargetsPassedToAStubThatWasDisposedOf:
    def test_are_disposed_of(self, client: BareSession) -> None:
        stub, target, kept = client.main.get(), Counter(), Kept()
        stub.dispose()
        with pytest.raises(DisposedError):
            stub(target, [target, kept])
        assert (target.disposals, kept.disposals) == (1, 0)

    def test_are_kept_while_something_else_of_the_session_refers_to_them(self, client: BareSession) -> None:
        stub, target = client.main.get(), Counter()
        client.main.keep(target)
        stub.dispose()
        with pytest.raises(DisposedError):
            stub(target)
        assert target.disposals == 0


class TestTheTargetsPassedToSomethingOfThisSide:
    async def test_are_disposed_of_when_it_is_no_function(self) -> None:
        target = Counter()
        with pytest.raises(RpcError, match="not a function"):
            await rpcshare.rpc.stub({"a": 1}).a(target)
        assert target.disposals == 1

    async def test_are_disposed_of_when_it_turns_out_to_be_an_error(self) -> None:
        async def failing() -> None:
            raise RpcError("no")

        target = Counter()
        called = rpcshare.rpc.promise(failing()).f(target)
        with pytest.raises(RpcError, match="no"):
            await called
        assert target.disposals == 1

    async def test_are_disposed_of_when_another_argument_fails(self) -> None:
        async def failing() -> None:
            raise RpcError("no")

        target = Counter()
        called: list[object] = []
        with pytest.raises(RpcError, match="no"):
            await rpcshare.rpc.stub(called.append)([target, rpcshare.rpc.promise(failing())])
        assert (target.disposals, called) == (1, [])


class TestTheTargetsOfACallThatTakesPlace:
    async def test_are_disposed_of_once(self, client: BareSession) -> None:
        target = Counter()
        waiting = await awaiting(client.main.f(target, [target]))
        assert target.disposals == 0
        client.exchange(["release", -1, 1], ["release", -2, 1], ["resolve", 1, 5])
        assert await waiting == 5
        assert target.disposals == 1

    def test_that_nobody_waits_for_are_disposed_of_when_the_peer_lets_go(self, client: BareSession) -> None:
        target = Counter()
        notify(client.main.f, (target,), lambda _error: None)
        assert target.disposals == 0
        client.exchange(["release", -1, 1])
        assert target.disposals == 1


def test_a_main_target_that_is_passed_by_its_own_session_stays(client: BareSession) -> None:
    api = Api()
    session = BareSession(api)
    with pytest.raises(EncodeError):
        session.main.f(api, object())
    assert session.session.closed is None


class TestWhatThePeerPassesToACallThatReachesNobody:
    def test_is_released_behind_a_rejection(self) -> None:
        server = BareSession(Api())
        answers = server.exchange(
            call("fail", args=["x"]),
            call("getUploader", args=[], of=1),
            call("write", args=[["export", -1], {"a": ["promise", -2]}], of=2),
            ["pull", 3],
        )
        assert answers[:2] == [["release", -1, 1], ["release", -2, 1]]
        assert answers[2][:2] == ["reject", 3]

    def test_is_released_by_a_mapper_function_that_is_applied_to_nothing(self) -> None:
        server = BareSession(Api())
        remap = ["remap", 1, [], [["export", -1]], [["pipeline", -1, [], [["pipeline", 0]]]]]
        assert server.exchange(["push", None], ["push", remap]) == [["release", -1, 1]]


def test_who_waits_for_a_stub_to_break_is_not_told_once_it_is_disposed_of(client: BareSession) -> None:
    told: list[Exception] = []
    stub = client.main.get()
    stub.on_broken(told.append)
    stub.dispose()
    client.session.close(SessionClosedError("over"))
    assert told == []

"""What is sent in place of an error, a thrown value, or a target that has a dup() of its own."""

from typing import cast

import pytest
from transcript import Api, BareSession, Counter, call

from rpcshare.rpc import RpcError, RpcTarget, Stub, ThrownValueError, rpc_method


def told(error: BaseException) -> RpcError:
    return RpcError(f"told: {error}", name="TypeError", stack="a stack", properties={"more": 1})


class TestOnSendError:
    def test_its_error_is_sent_in_place_of_another_and_with_its_stack(self) -> None:
        server = BareSession(Api(), on_send_error=told)
        for method, message in (("crash", "a detail of the implementation"), ("fail", "RangeError: x")):
            arguments: list[object] = ["x"] if method == "fail" else []
            answers = BareSession(Api(), on_send_error=told).exchange(
                call(method, args=arguments), ["pull", 1]
            )
            assert answers == [
                ["reject", 1, ["error", "TypeError", f"told: {message}", "a stack", {"more": 1}]]
            ]
        assert server.session.closed is None

    def test_without_an_answer_of_its_the_error_is_sent_as_ever(self) -> None:
        seen: list[BaseException] = []
        server = BareSession(Api(), on_send_error=seen.append)
        (answer,) = server.exchange(call("fail", args=["x"]), ["pull", 1])
        assert answer[2][:4] == ["error", "RangeError", "x", None]
        assert [str(error) for error in seen] == ["RangeError: x"]

    def test_it_is_asked_of_errors_within_values_too(self) -> None:
        class Main(RpcTarget):
            @rpc_method("get()")
            def get(self) -> object:
                return {"errors": [RpcError("one"), RpcError("two")]}

        server = BareSession(Main(), on_send_error=lambda _error: RpcError("hidden"))
        assert server.exchange(call("get", args=[]), ["pull", 1]) == [
            ["resolve", 1, {"errors": [[["error", "Error", "hidden"], ["error", "Error", "hidden"]]]}]
        ]

    def test_a_stack_that_the_peer_sent_goes_no_further_unless_it_says_so(self) -> None:
        error = ["error", "Error", "x", "their stack"]
        for hook, sent in ((None, error[:3]), (lambda error: error, error)):
            server = BareSession(Api(), on_send_error=hook)
            answers = server.exchange(call("wrap", args=[error]), ["pull", 1])
            assert answers == [["resolve", 1, {"value": sent, "list": [[sent]]}]]

    def test_a_hook_that_fails_tells_the_peer_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken(error: BaseException) -> RpcError:
            raise KeyError(str(error))

        server = BareSession(Api(), on_send_error=broken)
        (answer,) = server.exchange(call("fail", args=["secret"]), ["pull", 1])
        assert answer[2][2] == "Internal server error"
        assert "on_send_error failed" in caplog.text


class TestAThrownValue:
    @pytest.mark.parametrize("value", ["text", 5, None, {"why": [[1]]}, ["undefined"]])
    def test_that_is_no_error_is_passed_on_as_it_is(self, value: object) -> None:
        behind = BareSession()
        relay = BareSession(behind.main)
        relay.feed(call("fail", args=[]), ["pull", 1])
        behind.feed(["reject", 1, value])
        assert relay.sent() == [["reject", 1, value]]

    def test_is_an_error_with_the_value_for_who_awaits_it(self) -> None:
        error = ThrownValueError({"why": 5})
        assert (error.value, error.name, str(error)) == ({"why": 5}, "Error", "{'why': 5}")

    def test_that_has_no_form_on_the_wire_is_sent_as_its_text(self) -> None:
        class Main(RpcTarget):
            @rpc_method("fail()")
            def fail(self) -> None:
                raise ThrownValueError(
                    {
                        1,
                    }
                )

        assert BareSession(Main()).exchange(call("fail", args=[]), ["pull", 1]) == [
            ["reject", 1, ["error", "Error", "{1}"]]
        ]


class Shared(Counter):
    """A target whose owner keeps it: what is passed is another."""

    def __init__(self) -> None:
        super().__init__(1)
        self.made: list[Counter] = []

    def dup(self) -> Counter:
        self.made.append(Counter(len(self.made)))
        return self.made[-1]


class TestATargetWithADup:
    def test_is_asked_for_another_where_it_is_an_argument(self) -> None:
        shared, client = Shared(), BareSession()
        with client.main.f(shared, [shared]):
            client.exchange(["release", -1, 1], ["release", -2, 1])
        assert [made.disposals for made in shared.made] == [1, 1]
        assert shared.disposals == 0

    def test_is_asked_where_the_call_waits_for_its_receiver(self) -> None:
        shared, server = Shared(), BareSession(Api())
        server.feed(call("callBack", args=[["import", 0], 5]))
        (pending,) = server.asked()
        itself = cast("list[Stub]", pending.arguments.value)[0]
        itself.makeCounter(1).keep(shared)
        server.carry_out()
        assert len(shared.made) == 1
        assert shared.disposals == 0

    def test_is_sent_itself_where_it_is_a_result(self) -> None:
        shared = Shared()

        class Main(RpcTarget):
            @rpc_method("get()")
            def get(self) -> Shared:
                return shared

        BareSession(Main()).exchange(call("get", args=[]), ["pull", 1], ["release", 1, 1], ["release", -1, 1])
        assert (shared.made, shared.disposals) == ([], 1)


class TestAMainThatIsAStub:
    def test_is_the_peer_s_own_where_it_comes_home(self) -> None:
        behind = BareSession()
        relay = BareSession(behind.main)
        relay.feed(call("use", args=[["import", 0], {"deep": ["import", 0]}]))
        assert behind.sent()[0] == [
            "push",
            ["pipeline", 0, ["use"], [["import", 0], {"deep": ["import", 0]}]],
        ]

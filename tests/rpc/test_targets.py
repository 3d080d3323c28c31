"""What a peer reaches of an object, and what it does not."""

import functools
from collections.abc import Callable

import msgspec
import pytest
from transcript import BareSession, call

from rpcshare.rpc import UNDEFINED, RpcError, RpcTarget, Stub, rpc_method, rpc_property


class Options(msgspec.Struct, rename="camel"):
    max_items: int = 10
    title: str | None = None


class Service(RpcTarget):
    """Has a member of every kind."""

    shared = "on the class"

    def __init__(self) -> None:
        self.attribute = "on the instance"
        self.callback = lambda: "an attribute that can be called"
        self.calls: list[object] = []

    def unmarked(self) -> str:
        return "not exported"

    def _private(self) -> str:
        return "private"

    @property
    def plain_property(self) -> str:
        return "a property of Python's"

    @staticmethod
    def static() -> str:
        return "static"

    @rpc_method("echo(value?)")
    def echo(self, value: object = UNDEFINED) -> object:
        return value

    @rpc_method("greet(name, greeting?, punctuation?)")
    def greet(self, name: str, greeting: str = "hello", punctuation: str = "!") -> str:
        return f"{greeting}, {name}{punctuation}"

    @rpc_method("configure(options)")
    def configure(self, options: Options) -> list[object]:
        return [options.max_items, options.title]

    @rpc_method("sum(numbers)")
    def sum(self, numbers: list[int]) -> int:
        return sum(numbers)

    @rpc_method("call(function)")
    def call(self, function: Stub) -> bool:
        return isinstance(function, Stub)

    @rpc_method("callMaybe(function?)")
    def call_maybe(self, function: Stub | None = None) -> bool:
        return function is None

    @rpc_method("inSnakeCase()")
    def snake_case(self) -> str:
        return "by its name on the wire"

    @rpc_property("status")
    def status(self) -> dict[str, object]:
        return {"ok": True, "nested": {"list": [1, 2]}}

    @rpc_property("broken")
    def broken(self) -> str:
        raise RpcError("not today", code="LATER")


@pytest.fixture
def server() -> BareSession:
    return BareSession(Service())


def answer(server: BareSession, push: list[object]) -> list[object]:
    """Return the kind and the value of the answer to the one call of this session."""
    ((kind, _, value),) = server.exchange(push, ["pull", 1])
    return [kind, value]


UNREACHABLE = [
    "attribute",
    "callback",
    "calls",
    "shared",
    "unmarked",
    "_private",
    "plain_property",
    "static",
    "snake_case",
    "dispose",
    "rpc_members",
    "__init__",
    "__class__",
    "__dict__",
    "__getattribute__",
    "__init_subclass__",
    "__reduce__",
    "constructor",
    "toString",
    "then",
    "",
    "echo ",
    "Echo",
]


class TestFailClosed:
    @pytest.mark.parametrize("name", UNREACHABLE)
    def test_what_is_not_marked_cannot_be_called(self, server: BareSession, name: str) -> None:
        assert answer(server, call(name, args=[])) == [
            "reject",
            ["error", "TypeError", f"'{name}' is not a function."],
        ]

    @pytest.mark.parametrize("name", UNREACHABLE)
    def test_what_is_not_marked_cannot_be_read(self, server: BareSession, name: str) -> None:
        assert answer(server, call(name)) == ["resolve", ["undefined"]]

    @pytest.mark.parametrize(
        "path",
        [
            ("echo", "__globals__"),
            ("echo", "func"),
            ("echo", "__self__"),
            ("status", "__class__"),
            ("status", "keys"),
            ("status", "nested", "pop"),
            ("status", "nested", "list", "append"),
            ("status", "nested", "list", "__len__"),
            ("status", "nested", "list", "0"),
            ("status", "nested", "list", -1),
            ("status", "nested", "list", 2),
            ("status", 0),
            ("status", "ok", "real"),
            (0,),
        ],
        ids=lambda path: ".".join(map(str, path)),
    )
    def test_a_path_leads_only_where_the_wire_would_carry(
        self, server: BareSession, path: tuple[object, ...]
    ) -> None:
        assert answer(server, ["push", ["pipeline", 0, list(path)]]) == ["resolve", ["undefined"]]

    def test_a_function_has_no_members(self) -> None:
        function = functools.partial(print, "x")
        assert answer(BareSession(function), call("func")) == ["resolve", ["undefined"]]

    def test_a_target_cannot_be_called_itself(self, server: BareSession) -> None:
        assert answer(server, call(args=[])) == ["reject", ["error", "TypeError", "This is not a function."]]

    def test_a_path_into_a_value_is_followed(self, server: BareSession) -> None:
        assert answer(server, ["push", ["pipeline", 0, ["status", "nested", "list", 1]]]) == ["resolve", 2]


class TestInheritance:
    def test_a_marked_method_is_inherited(self) -> None:
        class Derived(Service):
            pass

        assert answer(BareSession(Derived()), call("inSnakeCase", args=[]))[0] == "resolve"

    def test_an_override_without_a_mark_takes_the_export_away(self) -> None:
        class Derived(Service):
            def snake_case(self) -> str:
                return "not for the peer"

        assert answer(BareSession(Derived()), call("inSnakeCase", args=[])) == [
            "reject",
            ["error", "TypeError", "'inSnakeCase' is not a function."],
        ]

    def test_an_attribute_in_the_place_of_a_method_takes_the_export_away(self) -> None:
        class Derived(Service):
            snake_case = None  # type: ignore[assignment]

        assert answer(BareSession(Derived()), call("inSnakeCase")) == ["resolve", ["undefined"]]

    def test_an_override_with_a_mark_is_exported_as_that_says(self) -> None:
        class Derived(Service):
            @rpc_method("another(value)")
            def snake_case(self, value: int) -> int:  # type: ignore[override]
                return value

        assert answer(BareSession(Derived()), call("another", args=[3])) == ["resolve", 3]
        assert answer(BareSession(Derived()), call("inSnakeCase")) == ["resolve", ["undefined"]]

    def test_the_base_is_left_as_it_was(self, server: BareSession) -> None:
        class Derived(Service):
            snake_case = None  # type: ignore[assignment]

        assert "inSnakeCase" not in Derived.rpc_members
        assert answer(server, call("inSnakeCase", args=[]))[0] == "resolve"


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["Ada"], "hello, Ada!"),
            (["Ada", "hi"], "hi, Ada!"),
            (["Ada", "hi", "?"], "hi, Ada?"),
            (["Ada", ["undefined"]], "hello, Ada!"),
            (["Ada", ["undefined"], "?"], "hello, Ada?"),
            (["Ada", "hi", ["undefined"], ["undefined"], ["undefined"]], "hi, Ada!"),
        ],
        ids=str,
    )
    def test_what_may_be_left_out_may_be_undefined(
        self, server: BareSession, arguments: list[object], expected: str
    ) -> None:
        assert answer(server, call("greet", args=arguments)) == ["resolve", expected]

    @pytest.mark.parametrize(
        ("method", "arguments", "message"),
        [
            ("greet", [], "greet: the argument name is missing"),
            ("greet", [["undefined"]], "greet: the argument name is missing"),
            ("greet", [["undefined"], "hi"], "greet: name: Expected `str`, got `null`"),
            ("greet", [5], "greet: name: Expected `str`, got `int`"),
            ("greet", [None], "greet: name: Expected `str`, got `null`"),
            ("greet", ["Ada", None], "greet: greeting: Expected `str`, got `null`"),
            ("greet", ["a", "b", "c", "d"], "greet: takes at most 3 arguments, not 4"),
            ("sum", [[[1, "2"]]], "sum: numbers: Expected `int`, got `str` - at `$[1]`"),
            ("sum", [{"0": 1}], "sum: numbers: Expected `array`, got `object`"),
            (
                "configure",
                [{"maxItems": "5"}],
                "configure: options: Expected `int`, got `str` - at `$.maxItems`",
            ),
            (
                "configure",
                [{"title": {}}],
                "configure: options: Expected `str | null`, got `object` - at `$.title`",
            ),
            ("configure", [{"maxItems": "a\udc00"}], "configure: options: half of a surrogate pair"),
            ("call", [5], "call: function: expected a function or an RPC target"),
            ("call", [None], "call: function: expected a function or an RPC target"),
            ("callMaybe", [[[]]], "callMaybe: function: expected a function or an RPC target"),
        ],
        ids=str,
    )
    def test_what_does_not_fit_is_refused_by_name(
        self, server: BareSession, method: str, arguments: list[object], message: str
    ) -> None:
        error = ["error", "Error", message, None, {"code": "INVALID_ARGUMENT"}]
        assert answer(server, call(method, args=arguments)) == ["reject", error]

    @pytest.mark.parametrize(
        ("method", "arguments", "expected"),
        [
            ("configure", [{"maxItems": 5, "title": None, "unknown": [[]]}], [[5, None]]),
            ("configure", [{}], [[10, None]]),
            ("sum", [[[1, ["bigint", "2"]]]], 3),
            ("call", [["import", 0]], True),
            ("call", [["export", -1]], True),
            ("callMaybe", [None], True),
            ("callMaybe", [], True),
            ("echo", [{"any": ["date", None]}], {"any": ["date", None]}),
            ("echo", [], ["undefined"]),
            ("echo", [None], None),
        ],
        ids=str,
    )
    def test_what_fits_is_converted_to_what_the_method_declares(
        self, server: BareSession, method: str, arguments: list[object], expected: object
    ) -> None:
        push = call(method, args=arguments)
        assert [answer for answer in server.exchange(push, ["pull", 1]) if answer[0] != "release"] == [
            ["resolve", 1, expected]
        ]

    def test_a_bigint_is_an_int(self, server: BareSession) -> None:
        push = call("sum", args=[[[["bigint", str(10**30)], 1]]])
        assert answer(server, push) == ["resolve", ["bigint", str(10**30 + 1)]]

    def test_a_function_that_is_no_method_takes_what_it_is_given(self) -> None:
        server = BareSession(lambda *arguments: list(arguments))
        assert answer(server, call(args=[1, ["undefined"]])) == ["resolve", [[1, ["undefined"]]]]


class TestProperties:
    def test_it_is_read_each_time(self) -> None:
        class Clock(RpcTarget):
            ticks = 0

            @rpc_property("now")
            def now(self) -> int:
                self.ticks += 1
                return self.ticks

        server = BareSession(Clock())
        assert server.exchange(call("now"), ["pull", 1], call("now"), ["pull", 2], ["pull", 1]) == [
            ["resolve", 1, 1],
            ["resolve", 2, 2],
        ]

    def test_its_error_is_that_of_whoever_reads_it(self, server: BareSession) -> None:
        error = ["error", "Error", "not today", None, {"code": "LATER"}]
        assert answer(server, call("broken")) == ["reject", error]

    def test_its_error_is_that_of_whoever_calls_through_it(self, server: BareSession) -> None:
        error = ["error", "Error", "not today", None, {"code": "LATER"}]
        assert answer(server, call("broken", "thing", args=[])) == ["reject", error]

    def test_what_it_returns_is_not_shared_with_the_peer(self) -> None:
        class Holder(RpcTarget):
            def __init__(self) -> None:
                self.items = [1]

            @rpc_property("items")
            def read(self) -> list[int]:
                return self.items

        holder = Holder()
        server = BareSession(holder)
        server.exchange(call("items"))
        holder.items.append(2)
        assert server.exchange(["pull", 1]) == [["resolve", 1, [[1]]]]

    @pytest.mark.parametrize("key", [None, 1, (1, 2)])
    def test_a_key_that_the_wire_has_no_form_for_fails_whoever_reads_it_and_nobody_else(
        self, key: object
    ) -> None:
        class Table(RpcTarget):
            @rpc_property("rows")
            def rows(self) -> object:
                return {key: 1}

            @rpc_method("tables()")
            def tables(self) -> object:
                return {"first": {key: 1}}

        table = BareSession(Table())
        answers = table.exchange(
            ["push", ["pipeline", 0, ["rows"]]],
            ["push", ["pipeline", 0, ["tables"], []]],
            ["push", ["pipeline", 2, ["first"]]],
            ["pull", 1],
            ["pull", 3],
        )
        why = f"a key of type {type(key).__name__} cannot be sent; keys are strings"
        error = ["error", "TypeError", why]
        assert answers == [["reject", 1, error], ["reject", 3, error]]
        assert table.session.closed is None


def method_of(signature: str, function: Callable[..., object]) -> type[RpcTarget]:
    made: type[RpcTarget] = type("Made", (RpcTarget,), {"method": rpc_method(signature)(function)})
    return made


class TestClassCreation:
    """A class whose exports cannot work does not come into being."""

    @pytest.mark.parametrize(
        "signature",
        [
            "",
            "name",
            "name(",
            "name)",
            "a.b()",
            "1a()",
            "f(a b)",
            "f(a=1)",
            "f(a?b)",
            "f(*a)",
            "f((a))",
            "f(a,?)",
            "é()",
        ],
    )
    def test_a_signature_has_one_form(self, signature: str) -> None:
        with pytest.raises(TypeError):
            method_of(signature, lambda self: None)

    @pytest.mark.parametrize(
        ("signature", "function"),
        [
            ("f()", lambda self, a: None),
            ("f(a)", lambda self: None),
            ("f(a)", lambda self, a=1: None),
            ("f(a?)", lambda self, a: None),
            ("f(a, b?)", lambda self, a, b, c=1: None),
            ("f(a)", lambda self, *a: None),
            ("f(a)", lambda self, **a: None),
            ("f(a)", lambda self, *, a: None),
            ("f(a?, b)", lambda self, a, b: None),
        ],
        ids=[
            "too few",
            "too many",
            "required here, optional there",
            "optional here, required there",
            "one forgotten",
            "any number",
            "any names",
            "by keyword only",
            "optional before required",
        ],
    )
    def test_a_signature_fits_its_method(self, signature: str, function: Callable[..., object]) -> None:
        with pytest.raises(TypeError):
            method_of(signature, function)

    @pytest.mark.parametrize("signature", ["f(a,b?)", "f( a , b? )", "f(a, b?,)"])
    def test_spaces_and_a_last_comma_do_not_matter(self, signature: str) -> None:
        assert "f" in method_of(signature, lambda self, a, b=1: None).rpc_members

    def test_a_name_is_exported_once(self) -> None:
        with pytest.raises(TypeError, match="'f'"):

            class Twice(RpcTarget):
                @rpc_method("f()")
                def one(self) -> None: ...

                @rpc_property("f")
                def other(self) -> None: ...

    def test_a_property_takes_no_arguments(self) -> None:
        with pytest.raises(TypeError, match="without parameters"):

            class Wrong(RpcTarget):
                @rpc_property("f")
                def read(self, a: int) -> None: ...

    def test_a_property_is_not_async(self) -> None:
        with pytest.raises(TypeError, match="not async"):

            class Wrong(RpcTarget):
                @rpc_property("f")
                async def read(self) -> None: ...

    def test_annotations_may_name_what_is_defined_later(self) -> None:
        class Early(RpcTarget):
            @rpc_method("f(later)")
            def f(self, later: "Later") -> int:
                return later.n

        class Later(msgspec.Struct):
            n: int

        Early.f.__globals__["Later"] = Later
        try:
            assert answer(BareSession(Early()), call("f", args=[{"n": 3}])) == ["resolve", 3]
        finally:
            del Early.f.__globals__["Later"]

"""Blob, URL, Headers, Request and Response: what can be made, what is refused, and how bodies travel."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from transcript import Api, BareSession, awaiting, call

from rpcshare.rpc import (
    JSON,
    URL,
    Blob,
    Codec,
    Connection,
    EncodeError,
    Headers,
    LimitExceededError,
    Limits,
    ReadableStream,
    Request,
    Response,
    RpcError,
    memory_pair,
)
from rpcshare.rpc.messagepack import MESSAGEPACK
from support.narrowing import not_none
from support.waiting import eventually


class TestURL:
    @pytest.mark.parametrize(
        "href",
        [
            "https://a.example",
            "HTTP://A:80/?#",
            "ws://u:p@[::1]:9/a@b",
            "http://a?@",
            "mailto:a@b",
            "a:",
            "file:///x",
            "data:text/plain,a b",
        ],
    )
    def test_is_its_text(self, href: str) -> None:
        assert URL(href) == href

    @pytest.mark.parametrize(
        "href",
        [
            "",
            "a",
            "/a",
            "//a.example/",
            "https://",
            "https:///a",
            "https://a:65536",
            "http://[::1",
            "http:a",
            "http://u@",
            "https://a:x/",
            "1a:b",
            "a:b\n",
            "a: b ",
        ],
    )
    def test_that_is_not_absolute_is_refused(self, href: str) -> None:
        with pytest.raises(ValueError, match=r"URL|[Pp]ort"):
            URL(href)


class TestHeaders:
    def test_do_not_mind_case(self) -> None:
        headers = Headers({"Content-Type": "text/plain"})
        assert headers["content-TYPE"] == "text/plain"
        assert "CONTENT-type" in headers
        assert list(headers) == ["content-type"]

    def test_have_each_value_of_a_name(self) -> None:
        headers = Headers([("a", "1"), ("b", "2"), ("A", "3")])
        assert headers["a"] == "1, 3"
        assert headers.get_list("a") == ["1", "3"]
        assert headers.pairs() == [("a", "1"), ("b", "2"), ("a", "3")]
        assert len(headers) == 2
        assert headers != Headers([("a", "1, 3"), ("b", "2")])

    def test_do_not_have_what_they_have_not(self) -> None:
        assert Headers({"a": "b"}).get("c") is None
        assert 5 not in Headers()
        with pytest.raises(KeyError):
            Headers()["a"]

    def test_can_be_made_of_others(self) -> None:
        headers = Headers({"a": "b"})
        assert Headers(headers) == headers
        assert hash(Headers(headers)) == hash(headers)

    def test_have_values_without_white_space_around(self) -> None:
        assert Headers({"a": " b c\t"})["a"] == "b c"

    @pytest.mark.parametrize("pair", [("", "a"), ("a b", "c"), ("ä", "a"), ("a", "b\r\nc: d"), ("a", "€")])
    def test_that_HTTP_does_not_have_are_refused(self, pair: tuple[str, str]) -> None:  # noqa: N802
        with pytest.raises(ValueError, match="HTTP header"):
            Headers([pair])

    def test_keep_their_values_out_of_their_repr(self) -> None:
        assert repr(Headers({"Authorization": "Bearer x", "a": "b"})) == "<Headers authorization, a>"


class TestRequest:
    @pytest.mark.parametrize(
        ("given", "method"), [("get", "GET"), ("Delete", "DELETE"), ("PATCH", "PATCH"), ("patch", "patch")]
    )
    def test_has_the_method_that_JavaScript_makes_of_it(self, given: str, method: str) -> None:  # noqa: N802
        assert Request("a:b", method=given).method == method

    @pytest.mark.parametrize(
        "arguments",
        [
            {"url": "/relative"},
            {"url": "https://user:secret@a.example/"},
            {"url": "a:b", "method": "CONNECT"},
            {"url": "a:b", "method": "trace"},
            {"url": "a:b", "method": "a b"},
            {"url": "a:b", "body": "text"},
            {"url": "a:b", "method": "HEAD", "body": b""},
            {"url": "a:b", "options": {"signal": None}},
            {"url": "a:b", "options": {"method": "PUT"}},
        ],
    )
    def test_that_JavaScript_would_not_make_is_refused(self, arguments: dict[str, Any]) -> None:  # noqa: N802
        with pytest.raises(ValueError, match=r"\w"):
            Request(**arguments)

    def test_whose_body_is_nothing_of_the_kind_is_refused(self) -> None:
        with pytest.raises(TypeError, match="a body is"):
            Request("a:b", method="PUT", body=[b"a"])  # type: ignore[arg-type]

    def test_keeps_its_url_out_of_its_repr(self) -> None:
        assert repr(Request("https://a.example/?token=x", method="PUT", body="secret")) == "<Request PUT>"


class TestResponse:
    @pytest.mark.parametrize(
        "arguments",
        [
            {"status": 199},
            {"status": 600},
            {"status": 204, "body": ""},
            {"status_text": "a\nb"},
            {"options": {"webSocket": {}}},
            {"options": {"statusText": "a"}},
        ],
    )
    def test_that_JavaScript_would_not_make_is_refused(self, arguments: dict[str, Any]) -> None:  # noqa: N802
        with pytest.raises(ValueError, match=r"\w"):
            Response(**arguments)

    def test_keeps_its_body_out_of_its_repr(self) -> None:
        assert repr(Response("secret", status=404)) == "<Response 404>"


class TestABodyThatIsRead:
    @pytest.mark.parametrize("body", ["añ", "añ".encode(), ReadableStream([b"a\xc3", b"\xb1"])])
    async def test_is_bytes(self, body: Any) -> None:
        assert await Response(body).read() == b"a\xc3\xb1"

    async def test_that_is_none_is_empty(self) -> None:
        assert await Response().read() == b""

    @pytest.mark.parametrize("body", ["abc", b"abc", ReadableStream([b"ab", b"c"])])
    async def test_may_be_bounded(self, body: Any) -> None:
        with pytest.raises(LimitExceededError, match="bytes of a body"):
            await Response(body).read(max_bytes=2)

    async def test_that_brings_no_bytes_is_refused(self) -> None:
        with pytest.raises(RpcError, match="a stream of bytes"):
            await Response(ReadableStream(["a"])).read()


class TestBlob:
    def test_has_its_type_in_lower_case(self) -> None:
        assert Blob(b"", "Text/HTML").type == "text/html"

    @pytest.mark.parametrize("kind", ["tëxt", "a\nb", "\x7f"])
    def test_has_no_type_that_JavaScript_would_not_have(self, kind: str) -> None:  # noqa: N802
        assert Blob(b"", kind).type == ""

    def test_keeps_its_bytes_out_of_its_repr(self) -> None:
        assert repr(Blob(b"secret", "text/plain")) == "<Blob 'text/plain' of 6 bytes>"


MALFORMED = [
    '["url"]',
    '["url",5]',
    '["url","/relative"]',
    '["url","a:b",1]',
    '["headers"]',
    '["headers",{"a":"b"}]',
    '["headers",[["a"]]]',
    '["headers",[["a","b","c"]]]',
    '["headers",[["a",1]]]',
    '["headers",[["a b","c"]]]',
    '["request","a:b"]',
    '["request",5,{}]',
    '["request","a:b",null]',
    '["request","/relative",{}]',
    '["request","a:b",{"method":5}]',
    '["request","a:b",{"method":"TRACE"}]',
    '["request","a:b",{"headers":{"a":"b"}}]',
    '["request","a:b",{"body":"text"}]',
    '["request","a:b",{"method":"PUT","body":5}]',
    '["request","a:b",{"method":"PUT","body":["pipeline",0]}]',
    '["request","a:b",{"method":"PUT","body":["bytes","YQ","ArrayBuffer"]}]',
    '["request","a:b",{"signal":["undefined"]}]',
    '["response",null]',
    '["response",null,[[]]]',
    '["response",["undefined"],{}]',
    '["response",null,{"status":199}]',
    '["response",null,{"status":"200"}]',
    '["response",null,{"status":true}]',
    '["response","",{"status":304}]',
    '["response",null,{"statusText":null}]',
    '["response",null,{"webSocket":1}]',
    '["blob"]',
    '["blob","text/plain"]',
    '["blob",null,["readable",1]]',
    '["blob","text/plain","text"]',
    '["blob","text/plain",["writable",-1]]',
    '["bytes","YQ","Int16Array"]',
    '["bytes","AAAA","Float32Array"]',
    '["bytes","AAAA","BigUint64Array"]',
    '["bytes","YQ","Float16Array"]',
    '["bytes","YQ",null]',
]


def why_closed(server: BareSession) -> str:
    return not_none(server.session.closed).message


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_malformed_ends_the_session(text: str) -> None:
    server = BareSession(print)
    server.session.receive(json.loads('["push",["pipeline",0,[],[' + text + "]]]"))
    kind = text.split('"')[1]
    assert why_closed(server) == f"malformed or unknown expression: {kind!r}"


def test_options_are_nested_no_deeper_than_anything_else() -> None:
    deep: object = 1
    for _ in range(300):
        deep = [deep]
    server = BareSession(print)
    server.feed(["push", ["request", "a:b", {"cf": deep}]])
    assert why_closed(server) == "limit exceeded: nesting depth (at most 256)"
    with pytest.raises(EncodeError, match="nested too deeply"):
        BareSession().main.f(Request("a:b", options={"cf": deep}))


class TestABlobThatArrives:
    """Its bytes come in a stream, and it is delivered when all of them are there."""

    START = (["pipe"], call("note", args=[["blob", "text/plain", ["readable", 1]]]))

    def test_is_delivered_whole(self, server: BareSession, api: Api) -> None:
        server.exchange(*self.START)
        server.exchange(["stream", ["pipeline", 1, ["write"], [["bytes", "aGVs"]]]])
        server.exchange(["stream", ["pipeline", 1, ["write"], [["bytes", "bG8"]]]])
        assert api.log == []
        assert server.exchange(["stream", ["pipeline", 1, ["close"], []]]) == [
            ["resolve", 5, ["undefined"]],
        ]
        assert api.log == [Blob(b"hello", "text/plain")]

    def test_has_each_part_acknowledged_as_it_comes(self, server: BareSession) -> None:
        server.exchange(*self.START)
        assert server.exchange(["stream", ["pipeline", 1, ["write"], [["bytes", "aGVs"]]]]) == [
            ["resolve", 3, ["undefined"]]
        ]

    def test_may_have_arrived_before_it_is_named(self, server: BareSession, api: Api) -> None:
        server.exchange(["pipe"])
        server.exchange(["stream", ["pipeline", 1, ["write"], [["bytes", "aGk"]]]])
        server.exchange(["stream", ["pipeline", 1, ["close"], []]])
        server.exchange(call("note", args=[["blob", "", ["readable", 1]]]))
        assert api.log == [Blob(b"hi")]

    def test_fails_the_call_if_it_breaks_off(self, server: BareSession, api: Api) -> None:
        server.exchange(*self.START, ["pull", 2])
        answers = server.exchange(["push", ["pipeline", 1, ["abort"], [["error", "Error", "lost"]]]])
        assert answers == [["reject", 2, ["error", "Error", "lost"]]]
        assert api.log == []

    def test_fails_the_call_if_it_is_let_go_of_before_its_end(self, server: BareSession, api: Api) -> None:
        server.exchange(*self.START, ["pull", 2])
        (answer,) = server.exchange(["release", 1, 1])
        assert answer[:2] == ["reject", 2]
        assert api.log == []

    def test_fails_the_call_if_it_is_not_made_of_bytes(self, server: BareSession) -> None:
        server.exchange(*self.START, ["pull", 2])
        answers = server.exchange(["stream", ["pipeline", 1, ["write"], ["text"]]])
        error = ["error", "TypeError", "a blob is a stream of bytes"]
        assert sorted(answers) == [["reject", 2, error], ["reject", 3, error]]

    def test_is_bounded_with_all_that_are_on_their_way(self) -> None:
        server = BareSession(print, limits=Limits(unread_bytes=500))
        for pipe in (1, 3):
            server.feed(["pipe"], ["push", ["blob", "", ["readable", pipe]]])
        part = ["bytes", "YWFh" * 100]
        server.session.receive(["stream", ["pipeline", 1, ["write"], [part]]], 100)
        assert server.session.closed is None
        part = ["bytes", "YWFh" * 100]
        server.session.receive(["stream", ["pipeline", 3, ["write"], [part]]], 100)
        assert why_closed(server) == "limit exceeded: unread bytes of streams (at most 500)"

    def test_counts_no_longer_once_it_has_arrived(self) -> None:
        server = BareSession(print, limits=Limits(unread_bytes=500))
        for pipe in (1, 5, 9):
            server.feed(["pipe"], ["push", ["blob", "", ["readable", pipe]]])
            server.feed(["stream", ["pipeline", pipe, ["write"], [["bytes", "YWFh" * 100]]]])
            server.feed(["stream", ["pipeline", pipe, ["close"], []]])
        assert server.session.closed is None

    async def test_is_not_collected_for_a_result_that_nobody_wants(self, client: BareSession) -> None:
        promise = client.main.f()
        waiting = await awaiting(promise)
        waiting.cancel()
        await asyncio.wait({waiting})
        promise.dispose()
        client.feed(["pipe"], ["resolve", 1, ["blob", "", ["readable", 1]]])
        (refused,) = [
            message
            for message in client.exchange(["stream", ["pipeline", 1, ["write"], [["bytes", "YQ"]]]])
            if message[0] == "reject"
        ]
        assert refused[1] == 2

    def test_cannot_be_read_twice(self, server: BareSession) -> None:
        server.exchange(*self.START)
        server.feed(["push", ["blob", "", ["readable", 1]]])
        assert why_closed(server) == "1 is no pipe, or is read already"

    def test_leaves_nothing_behind(self, server: BareSession) -> None:
        server.exchange(*self.START)
        server.exchange(["stream", ["pipeline", 1, ["close"], []]])
        server.exchange(["release", 1, 1], ["release", 2, 1])
        assert server.session.stats() == BareSession(print).session.stats()


@pytest.mark.parametrize("codec", [JSON, MESSAGEPACK], ids=["JSON", "MessagePack"])
class TestOverAConnection:
    async def test_a_body_that_is_a_stream_works_both_ways(self, codec: Codec) -> None:
        async def answer(request: Request) -> Response:
            return Response(ReadableStream([b"<", await request.read(), b">"]), headers=request.headers)

        near, far = memory_pair()
        async with Connection(far, answer, codec=codec), Connection(near, codec=codec) as connection:
            request = Request(
                "a:b", method="POST", body=ReadableStream([b"x" * 100_000] * 5), headers={"a": "b"}
            )
            response = await connection.remote_main(request)
            assert response.headers == Headers({"a": "b"})
            assert await response.read() == b"<" + b"x" * 500_000 + b">"

    async def test_a_request_that_is_passed_on_keeps_its_body(self, codec: Codec) -> None:
        def echo(value: object) -> object:
            return value

        near, far = memory_pair()
        async with Connection(far, echo, codec=codec), Connection(near, codec=codec) as connection:
            request = Request("a:b", method="POST", body=ReadableStream([b"a"]))
            echoed = await connection.remote_main({"request": request})
            assert await echoed["request"].read() == b"a"

    async def test_a_body_that_nobody_reads_is_cancelled(self, codec: Codec) -> None:
        ended = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 100_000
            finally:
                ended.set()

        near, far = memory_pair()
        async with (
            Connection(far, lambda _request: None, codec=codec),
            Connection(near, codec=codec) as connection,
        ):
            await connection.remote_main(Request("a:b", method="POST", body=ReadableStream(endless())))
            await ended.wait()

    async def test_a_blob_of_many_messages_arrives(self, codec: Codec) -> None:
        def echo(value: object) -> object:
            return value

        near, far = memory_pair()
        async with Connection(far, echo, codec=codec), Connection(near, codec=codec) as connection:
            blob = Blob(bytes(range(256)) * 8_000, "a/b")
            assert await connection.remote_main([blob, 1]) == [blob, 1]
            await eventually(lambda: connection.session.stats() == BareSession(print).session.stats())

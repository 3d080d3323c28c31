"""Stores that speak S3 in their own way, and credentials that others renew, as operators have reported."""

import asyncio
import base64
import hashlib
import hmac
import http.client
import logging
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from rpcshare.storage import StoreError, s3_client
from rpcshare.storage.s3 import S3Store
from rpcshare.storage.s3_client import open_client
from rpcshare.storage.s3_direct import describe
from rpcshare.storage.s3_failures import failure_of
from rpcshare.storage.s3_location import S3Location
from rpcshare.storage.s3_requests import S3Requests
from support.authorities import Authority
from support.narrowing import not_none
from support.s3_server import S3Server

LARGE = 2**20

Answer = tuple[int, str]
Rule = Callable[[str, str, Mapping[str, str]], Answer | None]


def error(status: int, code: str, message: str = "no") -> Answer:
    return status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"


class Request(msgspec.Struct):
    method: str
    target: str
    head: Mapping[str, str]
    body: bytes


class PeculiarStore:
    """A store in front of another; ``rule`` answers in its place, or not.

    Attributes:
        rule: given method, target and headers.
        headers: more headers of such an answer.
        says_continue: whether it answers ``Expect: 100-continue`` with 100, and not at all.
        refuses_expectations: whether it answers them with 417.
        requests: those that arrived whole.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (not_none(parts.hostname), parts.port)
        self.rule: Rule = lambda *_: None
        self.headers: dict[str, str] = {}
        self.says_continue = True
        self.refuses_expectations = False
        self.requests: list[Request] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, target, _ = first.split(" ")
                head = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines if line)
                }
                if "expect" in head:
                    if self.refuses_expectations:
                        writer.write(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
                        continue
                    if self.says_continue:
                        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(int(head.get("content-length", 0)))
                self.requests.append(Request(method, target, head, body))
                said = self.rule(method, target, head)
                if said is None:
                    status, headers, answer = await asyncio.to_thread(self._ask, method, target, head, body)
                else:
                    status, headers = said[0], {"Content-Type": "application/xml", **self.headers}
                    answer = b"" if method == "HEAD" else said[1].encode()
                writer.write(f"HTTP/1.1 {status} Said\r\n".encode())
                for name, value in headers.items():
                    writer.write(f"{name}: {value}\r\n".encode())
                length = b"" if method == "HEAD" else b"Content-Length: %d\r\n" % len(answer)
                writer.write(length + b"\r\n" + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _ask(self, method: str, target: str, head: Mapping[str, str], body: bytes):
        connection = http.client.HTTPConnection(*self._upstream)
        dropped = ("expect", "connection", "content-length")
        connection.request(method, target, body, {k: v for k, v in head.items() if k not in dropped})
        answer = connection.getresponse()
        kept = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in ("content-length", "connection", "transfer-encoding")
        }
        with answer:
            said = answer.read()
        connection.close()
        return answer.status, kept, said

    def of(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]


@pytest.fixture
async def peculiar(moto: S3Server) -> AsyncIterator[tuple[PeculiarStore, S3Location]]:
    store = PeculiarStore(moto.endpoint_url)
    async with await asyncio.start_server(store.serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        yield store, moto.location(endpoint_url=f"http://127.0.0.1:{port}")


# Expect: 100-continue (RFC 9110 section 10.1.1)


async def test_only_a_large_body_waits_for_leave_to_be_sent(peculiar) -> None:
    server, location = peculiar
    store = await S3Store.open(location)
    for size in (0, 5, LARGE - 1, LARGE, LARGE + 1):
        await store.put(f"key{size}", bytes(size))
    await store.put("new", b"", if_absent=True)
    await store.delete(["new"])
    await store.close()
    asked = {int(each.head["content-length"]): "expect" in each.head for each in server.of("PUT")}
    assert asked == {0: False, 5: False, LARGE - 1: False, LARGE: True, LARGE + 1: True}
    assert not any("expect" in each.head for each in server.of("POST"))


async def test_a_store_that_gives_no_leave_gets_the_body_all_the_same(peculiar) -> None:
    server, location = peculiar
    server.says_continue = False
    store = await S3Store.open(location)
    await store.put("key", b"x" * 2 * LARGE)
    await store.put("larger", b"y" * 17 * LARGE)  # in parts
    found = await store.get("key")
    assert found is not None
    assert found.body == b"x" * 2 * LARGE
    await store.close()
    assert sum(len(each.body) for each in server.of("PUT")) == 19 * LARGE


async def test_a_store_that_refuses_expectations_gets_the_body_without(peculiar) -> None:
    server, location = peculiar
    server.refuses_expectations = True
    store = await S3Store.open(location)
    await store.put("key", b"x" * LARGE)
    await store.close()
    (request,) = server.of("PUT")
    assert request.body == b"x" * LARGE


# DeleteObjects


async def test_deletions_have_the_digest_that_older_stores_want(peculiar) -> None:
    server, location = peculiar
    server.rule = lambda method, _target, head: (
        error(400, "InvalidRequest") if method == "POST" and "content-md5" not in head else None
    )
    store = await S3Store.open(location)
    await store.put("key", b"")
    await store.delete(["key"])
    assert await store.get("key") is None
    await store.close()
    (request,) = server.of("POST")
    digest = hashlib.md5(request.body, usedforsecurity=False).digest()
    assert request.head["content-md5"] == base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "InvalidRequest", "Missing required header for this request: Content-MD5"),
        error(400, "MalformedXML"),
        error(400, "BadDigest"),
        error(405, "MethodNotAllowed"),
        error(411, "MissingContentLength"),
        error(501, "NotImplemented", "A header you provided implies functionality that is not implemented"),
    ],
    ids=lambda refusal: refusal[1][13:30],
)
async def test_a_store_that_takes_no_deletions_together_gets_them_one_by_one(
    peculiar, refusal: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    server, location = peculiar
    server.rule = lambda method, *_: refusal if method == "POST" else None
    store = await S3Store.open(location)
    keys = [f"key{number}" for number in range(20)]
    for key in keys:
        await store.put(key, b"")
    await store.delete([*keys, "nothing there"])
    await store.delete(["nothing there"])
    assert [info.key async for info in store.list("")] == []
    await store.close()
    assert len(server.of("POST")) == 1
    (record,) = [record for record in caplog.records if "one by one" in record.getMessage()]
    assert "HTTP" in record.getMessage()


async def test_a_deletion_that_is_forbidden_is_not_tried_in_another_way(peculiar) -> None:
    server, location = peculiar
    server.rule = lambda method, *_: error(403, "AccessDenied") if method == "POST" else None
    store = await S3Store.open(location)
    with pytest.raises(StoreError, match="AccessDenied"):
        await store.delete(["key"])
    await store.close()
    assert server.of("DELETE") == []


async def test_why_an_object_is_not_deleted_on_its_own_is_a_store_error(peculiar) -> None:
    server, location = peculiar
    store = await S3Store.open(location)
    server.rule = lambda method, *_: error(400, "Odd") if method in ("POST", "DELETE") else None
    with pytest.raises(StoreError, match="Odd"):
        await store.delete([f"key{number}" for number in range(20)])
    await store.close()


# Redirections: of a proxy that wants https, and of a store whose bucket is elsewhere (boto3 issue 2961)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirection_is_told_at_once_and_not_followed(peculiar, status: int) -> None:
    server, location = peculiar
    store = await S3Store.open(location)
    server.rule = lambda *_: error(status, "PermanentRedirect", "Somewhere else")
    server.headers = {"Location": "https://bucket.s3.eu-example-1.example/secret-key?token=abc"}
    server.requests.clear()
    with pytest.raises(StoreError) as failed:
        await store.get("key")
    await store.close()
    assert f"(HTTP {status})" in str(failed.value)
    assert "endpoint_url" in str(failed.value)
    assert "https://bucket.s3.eu-example-1.example" in str(failed.value)
    assert "secret-key" not in str(failed.value)
    assert len(server.requests) == 1


async def test_a_redirection_to_nowhere_is_told_too(peculiar) -> None:
    server, location = peculiar
    server.rule = lambda *_: error(301, "PermanentRedirect")
    with pytest.raises(StoreError, match="endpoint_url"):
        await S3Store.open(location)


# What the store says


async def test_the_store_s_own_words_are_told_and_nothing_secret(peculiar) -> None:
    server, location = peculiar
    secrets: list[str] = []

    def rule(_method: str, _target: str, head: Mapping[str, str]) -> Answer:
        secrets.extend(head["authorization"].rsplit("Signature=", 1)[1:])
        return error(400, "TooStrange", f"Quota of bucket &#xa; exceeded. You sent: {head['authorization']}")

    store = await S3Store.open(location)
    server.rule = rule
    with pytest.raises(StoreError) as caught:
        await store.put("key", b"")
    assert "TooStrange (HTTP 400): Quota of bucket exceeded. You sent: " in str(caught.value)
    assert secrets
    assert not any(secret in str(caught.value) for secret in secrets)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    assert caught.value.reason == "TooStrange (HTTP 400)"
    await store.close()


# Credentials


@pytest.fixture
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_") and name not in ("AWS_CA_BUNDLE", "AWS_EC2_METADATA_DISABLED"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def _in_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    file = path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    return lambda key: _write(
        file, f"aws_access_key_id={key}\naws_secret_access_key=s\naws_session_token=t{key}"
    )


def _by_a_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    said = path / "said.json"
    _write(path / "config", f"credential_process = cat {said}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path / "config"))

    def write(key: str) -> None:
        value = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": "s", "SessionToken": f"t{key}"}
        said.write_bytes(msgspec.json.encode(value))

    return write


def _write(file: Path, lines: str) -> None:
    file.write_text(f"[default]\n{lines}\n")


@pytest.mark.usefixtures("_no_credentials")
@pytest.mark.parametrize("source", [_in_a_file, _by_a_process])
@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "ExpiredToken", "The provided token has expired."),
        error(403, "InvalidAccessKeyId"),
        error(403, "SignatureDoesNotMatch"),
        error(400, "InvalidToken"),
        error(400, "ExpiredTokenException"),
    ],
    ids=lambda refusal: refusal[1][13:33],
)
async def test_renewed_credentials_are_read_anew(
    peculiar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source, refusal: Answer
) -> None:
    server, location = peculiar
    good = "KEY1"
    server.rule = lambda _m, _t, head: None if f"={good}/" in head.get("authorization", "") else refusal
    write = source(tmp_path, monkeypatch)
    await asyncio.to_thread(write, "KEY1")
    store = await S3Store.open(location)
    await store.put("key", b"1")
    good = "KEY2"
    await asyncio.to_thread(write, "KEY2")
    await asyncio.gather(*(store.put(f"key{number}", b"2") for number in range(20)))
    await store.delete(["key"])
    await store.check()
    await store.close()


@pytest.mark.usefixtures("_no_credentials")
async def test_requests_that_wait_for_a_connection_are_made_with_the_credentials_there_are_then(
    peculiar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, location = peculiar
    good = "KEY1"
    refusal = error(400, "ExpiredToken", "The provided token has expired.")
    server.rule = lambda _m, _t, head: None if f"={good}/" in head.get("authorization", "") else refusal
    write = _in_a_file(tmp_path, monkeypatch)
    await asyncio.to_thread(write, "KEY1")
    store = await S3Store.open(msgspec.structs.replace(location, connections=1))
    good = "KEY2"
    await asyncio.to_thread(write, "KEY2")
    await asyncio.gather(*(store.check() for _ in range(20)))
    await store.close()


@pytest.mark.usefixtures("_no_credentials")
async def test_credentials_that_nobody_has_renewed_are_refused_in_the_store_s_words(
    peculiar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server, location = peculiar
    await asyncio.to_thread(_in_a_file(tmp_path, monkeypatch), "KEY1")
    store = await S3Store.open(location)
    await store.put("key", b"0")
    server.rule = lambda *_: error(400, "ExpiredToken", "The token tKEY1 of KEY1 has expired.")
    with pytest.raises(StoreError, match=r"ExpiredToken \(HTTP 400\): The token \[…\] of \[…\] has expired"):
        await store.put("key", b"1")
    assert len(server.of("PUT")) == 2
    assert "KEY1" not in "".join(r.getMessage() for r in caplog.records if r.name.startswith("rpcshare"))
    await store.close()


@pytest.mark.usefixtures("_no_credentials")
async def test_settings_of_aws_that_make_no_sense_are_told(
    peculiar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, location = peculiar
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(StoreError, match=str(location)):
        await S3Store.open(location)


# Objects that are read and written without botocore's client (s3_direct.py)

OF_AN_ATTEMPT = {"x-amz-date", "authorization", "amz-sdk-invocation-id", "amz-sdk-request"}
ODD_KEYS = ["plain", "a/b c", "~%2F+&=?#", "é/\N{GRINNING FACE}", "//", "$@:,;'()*!\"<>[]{}|^`\\"]


def is_on_model(head: Mapping[str, str]) -> bool:
    return "amz-sdk-invocation-id" not in head


@pytest.mark.parametrize("key", ODD_KEYS)
@pytest.mark.parametrize("conditions", [{}, {"If-None-Match": "*"}], ids=["always", "if absent"])
async def test_a_small_object_is_written_as_botocore_would(
    peculiar, key: str, conditions: dict[str, str]
) -> None:
    server, location = peculiar
    client = await open_client(location)
    await client.put(location.bucket, location.prefix + key, b"body", conditions)
    more: Any = {name.replace("-", ""): value for name, value in conditions.items()}
    await client.s3.delete_object(Bucket=location.bucket, Key=location.prefix + key)
    await client.s3.put_object(Bucket=location.bucket, Key=location.prefix + key, Body=b"body", **more)
    await client.retire()
    ours, theirs = server.of("PUT")
    assert (is_on_model(ours.head), is_on_model(theirs.head)) == (True, False)
    assert (ours.target, ours.body) == (theirs.target, theirs.body)
    kept = [{k: v for k, v in each.head.items() if k not in OF_AN_ATTEMPT} for each in (ours, theirs)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_a_small_object_has_the_signature_that_aws_describes(
    peculiar, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
    server, location = peculiar
    store = await S3Store.open(location)
    await store.put(key, b"body", if_absent=True)
    await store.close()
    (request,) = server.of("PUT")
    assert is_on_model(request.head)
    assert request.head["authorization"] == signed(request, "the-secret")


def signed(request: Request, secret: str) -> str:
    """Return what the AWS General Reference, "Signature Version 4", says that the header has to be."""
    said = dict(
        part.strip().split("=", 1) for part in request.head["authorization"].split(" ", 1)[1].split(",")
    )
    names = said["SignedHeaders"]
    body = hashlib.sha256(request.body).hexdigest()
    assert request.head["x-amz-content-sha256"] == body
    assert {"host", "if-none-match", "x-amz-content-sha256", "x-amz-date"} <= set(names.split(";"))
    lines = [f"{name}:{request.head[name]}" for name in names.split(";")]
    canonical = "\n".join([request.method, request.target, "", *lines, "", names, body])
    date = request.head["x-amz-date"]
    _, *scope = said["Credential"].split("/")
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join(["AWS4-HMAC-SHA256", date, "/".join(scope), digest])
    key = f"AWS4{secret}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"AWS4-HMAC-SHA256 Credential={said['Credential']}, SignedHeaders={names}, Signature={signature}"


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_an_object_is_read_as_botocore_would(peculiar, key: str) -> None:
    server, location = peculiar
    client = await open_client(location)
    await client.put(location.bucket, location.prefix + key, b"body", {})
    sizes: list[int] = []
    body, etag = await client.get(location.bucket, location.prefix + key, sizes.append)
    answer = await client.s3.get_object(Bucket=location.bucket, Key=location.prefix + key)
    assert (body, etag, sizes) == (await answer["Body"].read(), answer["ETag"], [4])
    await client.retire()
    ours, theirs = server.of("GET")
    assert (is_on_model(ours.head), is_on_model(theirs.head)) == (True, False)
    assert ours.target == theirs.target
    kept = [{k: v for k, v in each.head.items() if k not in OF_AN_ATTEMPT} for each in (ours, theirs)]
    assert kept[0] == kept[1]


async def test_what_a_model_does_not_find_is_looked_for_by_botocore_until_it_has_found_something(
    peculiar,
) -> None:
    server, location = peculiar
    store = await S3Store.open(location)
    await store.put("key", b"body")
    server.requests.clear()
    for key in ("nothing", "key", "nothing"):
        await store.get(key)
    await store.close()
    assert [is_on_model(each.head) for each in server.of("GET")] == [True, False, True, True]


async def test_a_store_that_refuses_what_is_on_the_model_gets_what_botocore_makes(peculiar) -> None:
    server, location = peculiar
    server.rule = lambda method, _target, head: (
        error(403, "SignatureDoesNotMatch") if method == "PUT" and is_on_model(head) else None
    )
    store = await S3Store.open(location)
    for number in range(8):
        await store.put(f"key{number}", b"body", if_absent=True)
    assert len([info async for info in store.list("")]) == 8
    await store.close()
    assert len(server.of("PUT")) == 8 + 5  # and then it is not tried again


async def test_a_bucket_elsewhere_is_written_to_where_it_is(peculiar) -> None:
    server, location = peculiar
    server.headers = {"x-amz-bucket-region": "eu-north-1"}
    server.rule = lambda method, _target, head: (
        error(301, "PermanentRedirect")
        if method == "PUT" and "/eu-north-1/" not in head["authorization"]
        else None
    )
    store = await S3Store.open(location)
    for number in range(4):
        await store.put(f"key{number}", b"body")
    await store.close()
    redirected, *others = server.of("PUT")
    assert "/us-east-1/" in redirected.head["authorization"]
    assert all("/eu-north-1/" in each.head["authorization"] for each in others[1:])
    assert [is_on_model(each.head) for each in others[-3:]] == [True] * 3


async def test_a_request_that_has_more_than_usual_is_left_to_botocore(peculiar) -> None:
    _, location = peculiar
    client = await open_client(location)

    def encrypt(params: dict[str, Any], **_more: object) -> None:
        params["headers"]["x-amz-server-side-encryption"] = "AES256"

    assert await describe(client.s3, "PutObject", location.bucket) is not None
    client.s3.meta.events.register("before-call.s3.PutObject", encrypt)
    assert await describe(client.s3, "PutObject", location.bucket) is None
    await client.retire()


async def test_to_be_described_a_request_is_not_sent(peculiar) -> None:
    server, location = peculiar
    client = await open_client(location)
    models = await asyncio.gather(*(describe(client.s3, "PutObject", location.bucket) for _ in range(20)))
    assert {not_none(model).url for model in models} == {f"{location.endpoint_url}/{location.bucket}/"}
    await client.retire()
    assert server.requests == []


async def test_a_store_that_has_too_much_to_do_is_asked_again_later(peculiar) -> None:
    server, location = peculiar
    store = await S3Store.open(location)
    answers = [
        error(503, "SlowDown"),
        error(500, "InternalError"),
        (502, "<html>"),
        error(409, "OperationAborted"),
    ]
    server.rule = lambda method, *_: answers.pop(0) if method == "PUT" and answers else None
    await store.put("key", b"body", if_absent=True)
    await store.close()
    assert len(server.of("PUT")) == 5
    assert all(is_on_model(each.head) for each in server.of("PUT"))


# What lies between: TLS, proxies, and settings and answers that are not the usual ones


@asynccontextmanager
async def behind_tls(
    server: S3Server, authority: Authority
) -> AsyncIterator[tuple[PeculiarStore, S3Location]]:
    """Run a store that speaks TLS, with a certificate of ``authority``."""
    store = PeculiarStore(server.endpoint_url)
    name = x509.IPAddress(ip_address("127.0.0.1"))
    certificate = authority.issue("", name, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.pem(certificate))
    async with await asyncio.start_server(store.serve, "127.0.0.1", 0, ssl=tls) as listener:
        port = listener.sockets[0].getsockname()[1]
        yield store, server.location(endpoint_url=f"https://127.0.0.1:{port}")


async def test_a_certificate_is_checked_by_the_bundle_of_cas_that_aws_s_settings_name(
    moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.path))
    async with behind_tls(moto, authority) as (server, location):
        store = await S3Store.open(location)
        await store.put("key", b"body", if_absent=True)
        assert not_none(await store.get("key")).body == b"body"
        assert all(is_on_model(each.head) for each in (*server.of("PUT"), *server.of("GET")[1:]))
        await store.close()


async def test_requests_that_are_the_first_all_at_once_find_out_once_how_they_are_made(
    moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.path))
    found: list[str] = []
    tls = s3_client._Session.tls

    async def counted(session: s3_client._Session) -> ssl.SSLContext:
        found.append("certificates")
        return await tls(session)

    monkeypatch.setattr(s3_client._Session, "tls", counted)
    async with behind_tls(moto, authority) as (server, location):
        client = await open_client(location)
        await asyncio.gather(
            *(client.put(location.bucket, f"{location.prefix}{n}", b"body", {}) for n in range(20))
        )
        await client.retire()
        assert all(is_on_model(each.head) for each in server.of("PUT"))
    assert found == ["certificates"]


async def test_what_is_behind_a_certificate_that_is_not_trusted_is_not_written_to(
    moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.path))
    async with behind_tls(moto, Authority(tmp_path / "other")) as (server, location):
        client = await open_client(location)
        with pytest.raises(ssl.SSLError) as raised:
            await client.put(location.bucket, "key", b"body", {})
        await client.retire()
        failure = failure_of(raised.value)
        assert (failure.reason[:10], failure.is_passing) == ("TLS failed", False)
        assert server.requests == []


async def test_a_proxy_that_the_environment_names_gets_all_requests(
    peculiar, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = peculiar
    seen: list[str] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, rest = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)
        method, url, version = first.decode().split(" ")
        seen.append(f"{method} {urlsplit(url).hostname}")
        path = url.split("/", 3)[3]
        rest = re.sub(rb"(?i)(\r\nhost: )[^\r]*", rb"\1127.0.0.1", b"\r\n" + rest)[2:]
        inner = asyncio.StreamReader()
        inner.feed_data(f"{method} /{path} {version}\r\n".encode() + rest)
        length = int(re.findall(rb"(?i)content-length: (\d+)", rest)[0]) if method == "PUT" else 0
        inner.feed_data(await reader.readexactly(length))
        inner.feed_eof()
        await server.serve(inner, writer)

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as listener:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        store = await S3Store.open(moto.location(endpoint_url="http://store.example", path_style=True))
        await store.put("key", b"body", if_absent=True)
        assert not_none(await store.get("key")).body == b"body"
        await store.close()
    assert seen == ["GET store.example", "PUT store.example", "GET store.example"]


async def test_a_host_that_needs_no_proxy_is_connected_to(peculiar, monkeypatch: pytest.MonkeyPatch) -> None:
    server, location = peculiar
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    store = await S3Store.open(location)
    await store.put("key", b"body")
    await store.close()
    assert [is_on_model(each.head) for each in server.of("PUT")] == [True]


async def test_settings_by_which_botocore_signs_in_another_way_are_kept_to(
    peculiar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server, location = peculiar
    config = tmp_path / "config"
    config.write_text("[default]\ns3 =\n  payload_signing_enabled = false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    client = await open_client(location)
    await client.put(location.bucket, location.prefix + "key", b"body", {})
    await client.retire()
    (request,) = server.of("PUT")
    assert not is_on_model(request.head)


@pytest.mark.parametrize("etag", ['"a  b"', '"\N{EURO SIGN}"', '"a\r\nX-Injected: 1"'])
async def test_an_etag_that_is_no_plain_token_is_left_to_botocore(peculiar, etag: str) -> None:
    server, location = peculiar
    client = await open_client(location)
    with suppress(Exception):  # whatever it makes of it
        await client.put(location.bucket, location.prefix + "key", b"body", {"If-Match": etag})
    await client.retire()
    assert not any(is_on_model(each.head) or "x-injected" in each.head for each in server.of("PUT"))


async def test_an_answer_that_is_http_by_half_is_read_as_by_botocore() -> None:
    """Of a store that ends its lines as no standard has it, and which aiohttp understands."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                seen.append("botocore" if b"amz-sdk-invocation-id" in head else "direct")
                body = await reader.readexactly(4)
                assert body == b"body"
                writer.write(b'HTTP/1.1 200 OK\r\nETag: "a\r\n b"\r\nContent-Length: 0\r\n\r\n')
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        requests = await S3Requests.open(S3Location(bucket="bucket", endpoint_url=f"http://127.0.0.1:{port}"))
        for _ in range(2):
            await requests.send(
                "put", lambda client, _limit: client.put("bucket", "key", b"body", {}), size=4
            )
        await requests.close()
    assert seen == ["direct", "botocore", "botocore"]


async def test_a_store_that_closes_idle_connections_at_once_loses_nothing(peculiar, moto: S3Server) -> None:
    """The keep-alive race: a request may be on its way while the store closes the connection."""
    server, _ = peculiar

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        inner = asyncio.StreamReader()
        inner.feed_data(head)
        length = int((re.findall(rb"(?i)content-length: (\d+)", head) or [b"0"])[0])
        inner.feed_data(await reader.readexactly(length))
        inner.feed_eof()
        await server.serve(inner, writer)  # which closes the connection behind the first answer

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        store = await S3Store.open(moto.location(endpoint_url=f"http://127.0.0.1:{port}"))

        async def write(writer: int) -> None:
            for number in range(10):
                await store.put(f"{writer}/{number}", b"body", if_absent=True)

        await asyncio.gather(*map(write, range(4)))
        assert len([info async for info in store.list("")]) == 40
        await store.close()

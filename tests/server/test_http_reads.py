"""Reading over HTTP: versions, codings, pages of other origins, and what every answer says."""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
import zstandard
from starlette.types import Receive, Scope, Send

from rpcshare.server.security_headers import SecurityHeadersMiddleware
from support.running_server import RunningServer

FOREIGN = "https://elsewhere.example"
LISTED = "https://listed.example"
PLAIN = {"Accept-Encoding": "identity"}


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data_dir = tmp_path_factory.mktemp("reads") / "data"
    options = (f"--allowed-origins={LISTED}", "--max-message-size=1MiB")
    with RunningServer(data_dir, *options) as server:
        yield server


@pytest.fixture
def http(open_server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=open_server.url, headers=PLAIN) as client:
        yield client


@pytest.fixture(scope="module")
def share(open_server: RunningServer) -> dict[str, str]:
    parts = [{"type": "part", "data": {"id": f"prt_{n}", "text": "hello " * 20}} for n in range(50)]
    return create(open_server, "ses_http_reads_000001", parts)


def create(server: RunningServer, session_id: str, data: Sequence[object] = ()) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {server.token}"}
    body = {"sessionID": session_id, "data": list(data)}
    created: dict[str, str] = httpx.post(f"{server.url}/api/share", json=body, headers=headers).json()
    return created


# Versions


@pytest.mark.parametrize("form", ["", "/data", "/metadata"])
def test_who_has_the_newest_version_is_told_so(http: httpx.Client, share: dict[str, str], form: str) -> None:
    path = f"/api/share/{share['id']}{form}"
    first = http.get(path)
    again = http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["cache-control"] == first.headers["cache-control"] == "private, no-cache"


def test_a_sync_makes_a_new_version(open_server: RunningServer, http: httpx.Client) -> None:
    share = create(open_server, "ses_http_reads_000002")
    path = f"/api/share/{share['id']}"
    old = http.get(path).headers["etag"]
    http.post(f"{path}/sync", json={"secret": share["secret"], "data": []})
    answer = http.get(path, headers={"If-None-Match": old})
    assert answer.status_code == 200
    assert answer.headers["etag"] != old


def test_a_share_made_anew_is_no_version_of_the_old_one(
    open_server: RunningServer, http: httpx.Client
) -> None:
    share = create(open_server, "ses_http_reads_000003")
    path = f"/api/share/{share['id']}"
    old = http.get(path).headers["etag"]
    http.request("DELETE", path, json={"secret": share["secret"]})
    create(open_server, "ses_http_reads_000003")
    assert http.get(path, headers={"If-None-Match": old}).status_code == 200


@pytest.mark.parametrize("condition", ["*", '"other", {}', "W/{}"])
def test_any_of_the_versions_named_will_do(http: httpx.Client, share: dict[str, str], condition: str) -> None:
    path = f"/api/share/{share['id']}"
    condition = condition.format(http.get(path).headers["etag"])
    assert http.get(path, headers={"If-None-Match": condition}).status_code == 304


def test_a_listing_has_a_version_too(open_server: RunningServer, http: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {open_server.token}"}
    tag = http.get("/api/my-sessions", headers=headers).headers["etag"]
    answer = http.get("/api/my-sessions", headers={**headers, "If-None-Match": tag})
    assert answer.status_code == 304


def test_a_version_is_no_way_around_a_credential(http: httpx.Client) -> None:
    assert http.get("/api/my-sessions", headers={"If-None-Match": "*"}).status_code == 401


def test_a_head_has_the_headers_and_no_body(http: httpx.Client, share: dict[str, str]) -> None:
    path = f"/api/share/{share['id']}"
    head, whole = http.head(path), http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == whole.headers["etag"]
    assert head.headers["content-length"] == str(len(whole.content))


# Codings


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, zstd;q=0.5", "gzip"),
        ("zstd;q=0, gzip;q=0.1", "gzip"),
        ("*", "zstd"),
        ("*;q=0.5, zstd;q=0", "gzip"),
        ("X-GZIP", "gzip"),
        ("identity, gzip;q=0.5", None),
        ("gzip;q=0", None),
        ("gzip;q=much", None),
        ("br", None),
        ("", None),
    ],
)
def test_an_answer_has_the_coding_that_the_client_likes_best(
    http: httpx.Client, share: dict[str, str], accepted: str, coding: str | None
) -> None:
    path = f"/api/share/{share['id']}"
    with http.stream("GET", path, headers={"Accept-Encoding": accepted}) as answer:
        body = b"".join(answer.iter_raw())
        assert answer.headers.get("content-encoding") == coding
        assert "Accept-Encoding" in answer.headers["vary"]
    decode: dict[str | None, Callable[[bytes], bytes]] = {
        "gzip": gzip.decompress,
        "zstd": zstandard.ZstdDecompressor().decompress,
        None: bytes,
    }
    assert decode[coding](body) == http.get(path).content


def test_bytes_that_differ_have_tags_that_differ_and_are_one_version(
    http: httpx.Client, share: dict[str, str]
) -> None:
    path = f"/api/share/{share['id']}"
    tags = {
        http.get(path, headers={"Accept-Encoding": each}).headers["etag"] for each in ("gzip", "identity")
    }
    assert len(tags) == 2
    assert {http.get(path, headers={"If-None-Match": tag}).status_code for tag in tags} == {304}


def test_a_small_answer_stays_as_it_is(http: httpx.Client, share: dict[str, str]) -> None:
    answer = http.get(f"/api/share/{share['id']}/metadata", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("coding", ["gzip", "zstd", "identity"])
def test_a_body_may_be_compressed(open_server: RunningServer, http: httpx.Client, coding: str) -> None:
    share = create(open_server, f"ses_http_reads_{coding}")
    body = json.dumps({"secret": share["secret"], "data": [{"type": "part", "data": {"id": "prt_1"}}]})
    answer = http.post(
        f"/api/share/{share['id']}/sync",
        content=encoded(body.encode(), coding),
        headers={"Content-Encoding": coding},
    )
    assert answer.json() == {"success": True, "syncCount": 1}


def test_so_may_a_batch_of_calls(open_server: RunningServer, http: httpx.Client) -> None:
    calls = b'["push", ["pipeline", 0, ["whoami"], []]]\n["pull", 1]'
    headers = {"Authorization": f"Bearer {open_server.token}", "Content-Encoding": "gzip"}
    answer = http.post("/rpc", content=gzip.compress(calls), headers=headers)
    assert answer.text.startswith('["resolve",1,{"subject":"admin"')


def encoded(body: bytes, coding: str) -> bytes:
    encode: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "zstd": zstandard.ZstdCompressor().compress,
        "identity": bytes,
    }
    return encode[coding](body)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_body_that_grows_past_the_limit_is_refused(
    http: httpx.Client, share: dict[str, str], coding: str
) -> None:
    bomb = encoded(b" " * 64 * 2**20, coding)
    assert len(bomb) < 2**20
    answer = http.post(f"/api/share/{share['id']}/sync", content=bomb, headers={"Content-Encoding": coding})
    assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("cut", [slice(0, -3), slice(3, None)])
def test_a_compressed_body_that_is_not_whole_is_refused(
    http: httpx.Client, share: dict[str, str], coding: str, cut: slice
) -> None:
    body = encoded(json.dumps({"secret": share["secret"], "data": []}).encode(), coding)[cut]
    answer = http.post(f"/api/share/{share['id']}/sync", content=body, headers={"Content-Encoding": coding})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_ARGUMENT")


def test_a_coding_that_is_unknown_is_refused_with_those_that_are_not(http: httpx.Client) -> None:
    answer = http.post("/api/share", content=b"x", headers={"Content-Encoding": "br"})
    assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert answer.headers["accept-encoding"] == "zstd, gzip"


def test_half_of_a_surrogate_pair_gets_through(open_server: RunningServer, http: httpx.Client) -> None:
    share = create(open_server, "ses_http_reads_000004")
    path = f"/api/share/{share['id']}"
    part = {"type": "part", "data": {"id": "prt_1", "text": "\ud83d"}}
    body = json.dumps({"secret": share["secret"], "data": [part]})
    assert http.post(f"{path}/sync", content=body).status_code == 200
    assert http.get(path).json()["parts"] == [{"id": "prt_1", "text": "\ud83d"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "surrogates"])
def test_json_in_another_encoding_than_utf_8_is_refused(
    http: httpx.Client, share: dict[str, str], encoding: str
) -> None:
    # Its values cannot be counted before they are made: to the count, U+2200 looks like a quotation mark.
    data = [{"type": "part", "data": {"id": "prt_1", "text": "\u2200"}}]
    text = json.dumps({"secret": share["secret"], "data": data}, ensure_ascii=False)
    if encoding == "surrogates":
        body = text.replace("\u2200", "\ud800").encode("utf-8", "surrogatepass")
    else:
        body = text.encode(encoding)
    answer = http.post(f"/api/share/{share['id']}/sync", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_ARGUMENT")


def test_the_secret_is_looked_at_before_the_data(http: httpx.Client, share: dict[str, str]) -> None:
    body = {"secret": "wrong", "data": "no list"}
    answer = http.post(f"/api/share/{share['id']}/sync", json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "INVALID_SECRET")


# Pages of other origins


def test_any_page_may_read_what_anybody_may(http: httpx.Client, share: dict[str, str]) -> None:
    answer = http.get(f"/api/share/{share['id']}", headers={"Origin": FOREIGN})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "shown",
    [{"Authorization": "Bearer TOKEN"}, {"x-opencode-share-key": "TOKEN"}, {"Cookie": "any=thing"}],
    ids=["authorization", "share key", "cookie"],
)
def test_a_foreign_page_may_not_read_as_somebody(
    open_server: RunningServer, http: httpx.Client, share: dict[str, str], shown: dict[str, str]
) -> None:
    headers = {name: value.replace("TOKEN", open_server.token) for name, value in shown.items()}
    answer = http.get(f"/api/share/{share['id']}", headers={**headers, "Origin": FOREIGN})
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("origin", "method", "headers", "allowed"),
    [
        (FOREIGN, "GET", "", "*"),
        (FOREIGN, "GET", "if-none-match, Last-Event-ID", "*"),
        (FOREIGN, "GET", "authorization", None),
        (FOREIGN, "DELETE", "", None),
        (LISTED, "GET", "authorization", LISTED),
        (LISTED, "POST", "content-type", LISTED),
    ],
)
def test_a_browser_learns_beforehand_what_a_page_may_do(
    http: httpx.Client, origin: str, method: str, headers: str, allowed: str | None
) -> None:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }
    answer = http.options(
        "/api/share/anything", headers={name: value for name, value in asked.items() if value}
    )
    assert answer.status_code == (403 if allowed is None else 204)
    assert answer.headers.get("access-control-allow-origin") == allowed
    if allowed is not None:
        assert method in answer.headers["access-control-allow-methods"]
        names = {name.strip().lower() for name in headers.split(",") if name}
        assert names <= set(answer.headers["access-control-allow-headers"].split(", "))


def test_a_listed_page_may_write_and_look_at_the_answer(
    open_server: RunningServer, http: httpx.Client
) -> None:
    headers = {"Authorization": f"Bearer {open_server.token}", "Origin": LISTED}
    answer = http.post("/api/share", json={"sessionID": "ses_http_reads_000005"}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == LISTED
    assert "Origin" in answer.headers["vary"]


# What every answer says


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/nothing/here", 404),
        ("PUT", "/api/share", 405),
        ("GET", "/api/my-sessions", 401),
        ("POST", "/rpc", 401),
        ("GET", "/ws/anything", 426),
        ("GET", "/metrics", 200),
    ],
)
def test_every_answer_is_safe_in_a_browser(http: httpx.Client, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_server_that_browsers_reach_by_tls_has_them_insist_on_it() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx.ASGITransport(SecurityHeadersMiddleware(app, "https://share.example"))
    async with httpx.AsyncClient(transport=transport, base_url="https://share.example") as client:
        answer = await client.get("/")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_without_tls_no_browser_is_told_to_insist_on_it(server: RunningServer) -> None:
    assert "strict-transport-security" not in httpx.get(f"{server.url}/healthz").headers


def test_an_answer_with_a_secret_is_not_kept(open_server: RunningServer, http: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {open_server.token}"}
    answer = http.post("/api/share", json={"sessionID": "ses_http_reads_000006"}, headers=headers)
    assert answer.headers["cache-control"] == "no-store"


def test_the_start_page_is_the_list_without_the_key(open_server: RunningServer, http: httpx.Client) -> None:
    answer = http.get(f"/k/{open_server.token}/")
    assert (answer.status_code, answer.headers["location"]) == (302, "/sessions")


@pytest.mark.parametrize("path", ["/%E2%82%AC", "/api/share/%2Fetc", "/api/share/%00", "/api/share/..%2f.."])
def test_a_path_of_odd_characters_is_not_found(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404


@pytest.mark.slow
def test_a_large_share_that_many_read_at_once_is_held_once(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        data = [{"type": "part", "data": {"id": f"prt_{n}", "text": "x" * 1_000_000}} for n in range(8)]
        share = create(server, "ses_http_reads_000007", data)
        path = f"{server.url}/api/share/{share['id']}"
        httpx.get(path, headers=PLAIN)
        before = resident(server)
        # Each has the head of its answer, and reads no more for now.
        with httpx.Client(headers=PLAIN, limits=httpx.Limits(max_connections=40)) as client:
            answers = [client.send(client.build_request("GET", path), stream=True) for _ in range(30)]
            grown = resident(server) - before
            assert {answer.status_code for answer in answers} == {200}
            for answer in answers:
                answer.close()
    assert grown < 100 * 2**20  # 30 copies would be 240


def resident(server: RunningServer) -> int:
    """Return how many bytes of memory the server has."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024

"""Exports of a share, and the files in its parts: downloads that run nothing, for who may read the share."""

import base64
import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from rpcshare.transcripts import read_session_file
from support.running_server import RunningServer

FORMATS = {
    "opencode": "application/json",
    "markdown": "text/markdown; charset=utf-8",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
}
EXTENSIONS = {"opencode": "json", "markdown": "md", "json": "json", "jsonl": "jsonl"}
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
EVIL_NAME = "../../ki\u202ete\r\nX: y.svg"
PNG = base64.b64decode("iVBORw0KGgo=")


def data_url(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def part(part_id: str, kind: str = "text", **fields: Any) -> dict[str, Any]:
    return {"type": "part", "data": {"id": part_id, "messageID": "msg_1", "type": kind, **fields}}


ITEMS = [
    {"type": "session", "data": {"id": "ses_1", "title": "Kites", "time": {"created": 1, "updated": 2}}},
    {"type": "message", "data": {"id": "msg_1", "role": "user", "time": {"created": 1}}},
    part("prt_1", text="How many kites?"),
    part("prt_svg", "file", mime="image/svg+xml", filename=EVIL_NAME, url=data_url("image/svg+xml", SVG)),
    part("prt_html", "file", mime="text/html", url=data_url("text/html", b"<script>")),
    part("prt_text", "file", mime="text/plain", filename='naïve "a".txt', url="data:text/plain,a%20b"),
    part("prt_away", "file", mime="text/plain", filename="a.txt", url="file:///home/dev/a.txt"),
    part("prt_bad", "file", mime="text/plain", url="data:text/plain;base64,a"),
    part("prt_odd", "file", mime="text/html\r\nX-Evil: 1", url=data_url("image/png", PNG)),
    part(
        "prt_tool",
        "tool",
        tool="read",
        state={
            "status": "completed",
            "attachments": [
                {"id": "prt_att", "type": "file", "mime": "image/png", "url": data_url("image/png", PNG)}
            ],
        },
    ),
    part("a b", "file", mime="text/plain", url="data:,blank"),
]


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Accept-Encoding": "identity"}) as client:
        yield client


def create(server: RunningServer, items: list[dict[str, Any]], **options: Any) -> str:
    body = {"sessionID": f"ses_{uuid4().hex}", "data": items, **options}
    headers = {"Authorization": f"Bearer {server.token}"}
    return str(
        httpx.post(f"{server.url}/api/share", json=body, headers=headers).raise_for_status().json()["id"]
    )


@pytest.fixture(scope="module")
def share(server: RunningServer) -> str:
    return create(server, ITEMS)


@pytest.fixture(scope="module")
def large_share(server: RunningServer) -> str:
    """One that leaves in parts."""
    parts = [part(f"prt_{n:05}", text=f"kite {n} " + "é🎉" * 300) for n in range(400)]
    return create(server, [*ITEMS[:2], *parts])


def parts_of(items: list[Any]) -> list[str]:
    return [item["data"]["id"] for item in items if item["type"] == "part"]


def content(http: httpx.Client, share: str, part_id: str, **options: Any) -> httpx.Response:
    return http.get(f"/api/share/{share}/parts/{part_id}/content", **options)


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_is_a_download_of_its_own_type(http: httpx.Client, share: str, form: str) -> None:
    answer = http.get(f"/api/share/{share}/export", params={"format": form})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == FORMATS[form]
    name = f'attachment; filename="{share}.{EXTENSIONS[form]}"'
    assert answer.headers["content-disposition"] == name
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("which", ["share", "large_share"])
@pytest.mark.parametrize("form", ["opencode", "json", "jsonl"])
def test_an_export_is_read_as_the_session_that_it_was_made_of(
    http: httpx.Client, request: pytest.FixtureRequest, which: str, form: str
) -> None:
    share = request.getfixturevalue(which)
    exported = http.get(f"/api/share/{share}/export", params={"format": form}).content
    of_parts = [
        item["data"]["id"] for item in http.get(f"/api/share/{share}/data").json() if item["type"] == "part"
    ]
    read = [item["data"]["id"] for item, _ in read_session_file(exported).items if item["type"] == "part"]  # type: ignore[index]
    assert [each.removeprefix("prt_") for each in read] == [each.removeprefix("prt_") for each in of_parts]


@pytest.mark.parametrize("form", FORMATS)
def test_a_large_export_in_a_coding_is_the_same(http: httpx.Client, large_share: str, form: str) -> None:
    path = f"/api/share/{large_share}/export?format={form}"
    with http.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        packed = b"".join(answer.iter_raw())
    assert gzip.decompress(packed) == http.get(path).content
    assert "kite 399 " in gzip.decompress(packed).decode()


@pytest.mark.parametrize("query", ["", "?format=", "?format=pdf", "?format=JSON"])
def test_another_format_is_refused_and_the_formats_are_named(
    http: httpx.Client, share: str, query: str
) -> None:
    answer = http.get(f"/api/share/{share}/export{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert answer.json()["error"] == "format: must be one of opencode, markdown, json, jsonl"


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_has_a_head_and_a_version(http: httpx.Client, share: str, form: str) -> None:
    path = f"/api/share/{share}/export?format={form}"
    head = http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    again = http.get(path, headers={"If-None-Match": head.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    ["export?format=opencode", "export?format=markdown", "parts/prt_text/content", "parts/none/content"],
)
def test_who_may_not_read_a_share_gets_no_file_of_it(
    server: RunningServer, http: httpx.Client, path: str
) -> None:
    share = create(server, ITEMS, visibility="private")
    assert http.get(f"/api/share/{share}/{path}").status_code == 401
    owned = http.get(f"/api/share/{share}/{path}", headers={"Authorization": f"Bearer {server.token}"})
    assert owned.status_code == (404 if "none" in path else 200)


@pytest.mark.parametrize("path", ["export?format=json", "export?format=markdown", "parts/prt_1/content"])
def test_a_share_that_is_not_there_is_not_found(http: httpx.Client, path: str) -> None:
    answer = http.get(f"/api/shares/nowhere8/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "SHARE_NOT_FOUND")


@pytest.mark.parametrize(
    ("part_id", "media_type", "expected"),
    [
        ("prt_svg", "image/svg+xml", SVG),
        ("prt_html", "text/html; charset=utf-8", b"<script>"),
        ("prt_text", "text/plain; charset=utf-8", b"a b"),
        ("prt_att", "image/png", PNG),
        ("prt_odd", "image/png", PNG),
        ("a%20b", "text/plain; charset=utf-8", b"blank"),
    ],
)
def test_a_file_is_a_download_that_runs_nothing(
    http: httpx.Client, share: str, part_id: str, media_type: str, expected: bytes
) -> None:
    answer = content(http, share, part_id)
    assert (answer.status_code, answer.content) == (200, expected)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-length"] == str(len(expected))
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize(
    ("part_id", "disposition"),
    [
        ("prt_svg", 'attachment; filename="kiteX_ y.svg"'),
        ("prt_html", 'attachment; filename="file.html"'),
        ("prt_text", "attachment; filename=\"na_ve _a_.txt\"; filename*=UTF-8''na%C3%AFve%20_a_.txt"),
    ],
)
def test_the_name_of_a_file_is_safe(http: httpx.Client, share: str, part_id: str, disposition: str) -> None:
    assert content(http, share, part_id).headers["content-disposition"] == disposition


@pytest.mark.parametrize(
    ("part_id", "why"),
    [
        ("prt_none", ""),
        ("prt_1", ": this part is no file"),
        ("prt_tool", ": this part is no file; its attachments are prt_att"),
        ("prt_away", ": the file is not in the share, only a link to where it was"),
        ("prt_bad", ": the file is no base64"),
    ],
)
def test_why_there_is_no_file_is_told(http: httpx.Client, share: str, part_id: str, why: str) -> None:
    answer = content(http, share, part_id)
    told = {"error": f"Part not found{why}", "code": "PART_NOT_FOUND"}
    assert (answer.status_code, answer.json()) == (404, told)


def test_a_file_has_a_head_and_a_version(http: httpx.Client, share: str) -> None:
    head = http.head(f"/api/share/{share}/parts/prt_svg/content")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(SVG)))
    assert content(http, share, "prt_svg", headers={"If-None-Match": head.headers["etag"]}).status_code == 304


def test_a_message_without_what_opencode_requires_is_completed(http: httpx.Client, share: str) -> None:
    (message,) = http.get(f"/api/share/{share}/export?format=opencode").json()["messages"]
    assert message["info"] == {
        "id": "msg_1",
        "role": "user",
        "time": {"created": 1},
        "sessionID": "ses_1",
        "agent": "build",
        "model": {"providerID": "unknown", "modelID": "unknown"},
    }
    assert {part["sessionID"] for part in message["parts"]} == {"ses_1"}


@pytest.mark.parametrize("options", [{"visibility": "private"}, {"password": "a password for all"}])
def test_who_may_not_import_by_the_link_is_told_how(
    server: RunningServer, http: httpx.Client, options: dict[str, str]
) -> None:
    share = create(server, ITEMS, **options)
    refusal = http.get(f"/api/share/{share}/data")
    assert (refusal.status_code, refusal.json()["code"]) == (401, "UNAUTHORIZED")
    assert refusal.json()["error"].startswith("Unauthorized: this share ")
    assert "rpcshare pull URL --format opencode" in refusal.json()["error"]
    # What it names is what helps.
    exported = http.get(f"/k/{server.token}/api/share/{share}/export?format=opencode")
    assert exported.json()["info"]["title"] == "Kites"
    assert http.get(f"/k/{server.token}/api/share/{share}/data").status_code == 200


def test_what_is_too_large_for_a_share_is_logged(server: RunningServer, share: str) -> None:
    large = b'{"data": ["' + b"x" * (16 * 2**20) + b'"]}'
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    refused = httpx.post(f"{server.url}/api/share/{share}/sync", content=large, headers=headers)
    assert refused.status_code == 413
    (line,) = [
        line for line in server.log.read_text().splitlines() if f"share={share} " in line and "lacks" in line
    ]
    assert "the body is larger than 16,777,216 bytes" in line


@pytest.mark.rare
def test_files_that_slow_readers_hold_take_no_more_room_than_there_is(tmp_path: Path) -> None:
    files = 9
    with RunningServer(tmp_path / "data") as server, contextlib.ExitStack() as stack:
        body = {"sessionID": f"ses_{uuid4().hex}"}
        headers = {"Authorization": f"Bearer {server.token}"}
        made = httpx.post(f"{server.url}/api/share", json=body, headers=headers).json()
        for number in range(files):
            url = data_url("application/zip", bytes(11_000_000))
            data = [part(f"prt_{number}", "file", mime="application/zip", url=url)]
            path = f"{server.url}/api/share/{made['id']}/sync"
            httpx.post(path, json={"secret": made["secret"], "data": data}, timeout=60).raise_for_status()
        client = stack.enter_context(httpx.Client(base_url=server.url, timeout=60))

        def begin(part_id: str) -> int:
            path = f"/api/share/{made['id']}/parts/{part_id}/content"
            answer = client.send(client.build_request("GET", path), stream=True)
            stack.callback(answer.close)
            return answer.status_code

        assert {begin("prt_0") for _ in range(20)} == {200}  # they have one between them
        told = [begin(f"prt_{number}") for number in range(files)]
        assert told[:5] == [200] * 5
        assert told[-1] == 429
        stack.close()
        with httpx.Client(base_url=server.url, timeout=60) as other:
            assert content(other, made["id"], f"prt_{files - 1}").status_code == 200

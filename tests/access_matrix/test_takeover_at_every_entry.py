"""Nobody gets another's share by its session ID, which is public, wherever it is asked for."""

import json
from uuid import uuid4

import httpx
import pytest

from access_matrix.asking import Asker
from access_matrix.deployments import Made
from access_matrix.runs import MatrixRun

pytestmark = pytest.mark.slow  # a server of its own

THIEVES = ["nobody", "wrong token", "password", "view token", "read key", "other owner", "certificate"]
THIEVES += ["trusted proxy", "untrusted proxy", "admin", "open: nobody", "open: password", "open: read key"]
THEIRS = [{"type": "part", "data": {"id": "prt_stolen", "text": "stolen"}}]


def create_over_rpc(asker: Asker, client: httpx.Client, session_id: str, path: str) -> dict[str, str] | None:
    lines = [
        ["push", ["pipeline", 0, ["createShare"], [session_id, [THEIRS], {"visibility": "link"}]]],
        ["pull", 1],
    ]
    answer = client.post(asker.caller.prefix + path, content="\n".join(map(json.dumps, lines)))
    if answer.status_code != 200:
        return None
    match answer.json():
        case ["resolve", 1, made]:
            return made
    return None


def create_over_http(asker: Asker, client: httpx.Client, session_id: str, path: str) -> dict[str, str] | None:
    body = {"sessionID": session_id, "data": THEIRS, "visibility": "link"}
    answer = client.post(asker.caller.prefix + path, json=body)
    return answer.json() if answer.status_code == 200 else None


def create_over_websocket(
    asker: Asker, _client: httpx.Client, session_id: str, path: str
) -> dict[str, str] | None:
    if asker.caller.name in ("nobody", "wrong token", "password", "untrusted proxy"):
        return None  # refused at the handshake, as the matrix has it
    with asker.websocket(path) as websocket:
        websocket.send(json.dumps(["push", ["pipeline", 0, ["createShare"], [session_id, [THEIRS]]]]))
        websocket.send(json.dumps(["pull", 1]))
        match json.loads(websocket.recv()):
            case ["resolve", 1, made]:
                return made
    return None


ENTRIES = {
    "WebSocket": (create_over_websocket, "/rpc"),
    "batch": (create_over_rpc, "/rpc"),
    "other batch": (create_over_rpc, "/rpc/share"),
    "HTTP": (create_over_http, "/api/share"),
    "other HTTP": (create_over_http, "/api/shares"),
}


@pytest.mark.parametrize("visibility", ["link", "private"])
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("thief", THIEVES)
def test_a_session_id_is_no_way_to_a_share(run: MatrixRun, thief: str, entry: str, visibility: str) -> None:
    asker = Asker(run.caller(thief), entry)
    session_id = f"ses_{uuid4().hex}"
    share = asker.deployment.make(session_id=session_id, visibility=visibility)
    create, path = ENTRIES[entry]
    with asker.client() as client:
        made = create(asker, client, session_id, path)
        if made is not None:
            assert made["id"] != share.id
            assert made["secret"] != share.secret
            asker.deployment.handed.secret(made["secret"])
        shown = {} if made is None else {"secret": made["secret"]}
        if thief != "admin" or made is None:
            for method, of_share in (
                ("DELETE", ""),
                ("PATCH", ""),
                ("POST", "/sync"),
                ("POST", "/view-token"),
            ):
                url = f"{asker.caller.prefix}/api/share/{share.id}{of_share}"
                assert client.request(
                    method, url, json={**shown, "data": []} if of_share == "/sync" else shown
                ).status_code in (401, 403)
    assert parts(asker, share) == ["prt_1", "prt_file"]


def parts(asker: Asker, share: Made) -> list[str]:
    deployment = asker.deployment
    headers = {"Authorization": f"ApiKey {deployment.keys['owner']}"}
    with httpx.Client(base_url=deployment.url, verify=deployment.nobody, headers=headers) as client:
        return [part["id"] for part in client.get(f"/api/share/{share.id}").json()["parts"]]

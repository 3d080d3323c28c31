"""The search for credentials finds those that are planted, however they are written."""

import asyncio
import base64
import html
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote, quote_plus
from uuid import UUID

import pytest

from access_matrix.deployments import PASSWORD, Deployment, Handed
from access_matrix.searching import given_away, places_with, traces
from rpcshare.config import Settings
from rpcshare.shares.objects import pack
from rpcshare.storage import open_store

pytestmark = pytest.mark.slow  # a server of its own

ODD = "a+token/with?odd~bytes&more"


def in_base64(credential: str, *, behind: bytes) -> bytes:
    return base64.b64encode(behind + credential.encode() + b" and more")


DISGUISES: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "in a URL": lambda credential: quote(credential).encode(),
    "in a query": lambda credential: quote(credential, safe="").encode(),
    "in a form": lambda credential: quote_plus(credential).encode(),
    "in HTML": lambda credential: html.escape(credential).encode(),
    "in JSON": lambda credential: json.dumps({"it": f'"{credential}"'}).encode(),
    "as UTF-16": lambda credential: credential.encode("utf-16"),
    "backwards": lambda credential: credential[::-1].encode(),
    "as Basic credentials": partial(in_base64, behind=b"ann:"),
    "in base64, one later": partial(in_base64, behind=b"anna:"),
    "in base64, two later": partial(in_base64, behind=b"annie:"),
    "as a subprotocol": lambda credential: base64.urlsafe_b64encode(credential.encode()).rstrip(b"="),
}
OF_UUIDS: dict[str, Callable[[str], bytes]] = {
    "without dashes": lambda credential: UUID(credential).hex.encode(),
    "as 16 bytes": lambda credential: UUID(credential).bytes,
    "as 16 bytes in base64": lambda credential: base64.b64encode(UUID(credential).bytes),
}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A run of which nothing is asked but what makes its shares."""
    with Deployment(tmp_path_factory.mktemp("planted"), Handed()) as deployment:
        deployment.handed.secret(ODD)
        yield deployment


def found(deployment: Deployment) -> list[str]:
    return places_with(deployment.handed.credentials, asyncio.run(traces(deployment)))


def found_when_in(path: Path, planted: bytes, deployment: Deployment) -> list[str]:
    """Return what the search finds with a line more in a file, which is taken away again."""
    before = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"and then %b happened\n" % planted)
    try:
        return found(deployment)
    finally:
        with path.open("r+b") as file:
            file.truncate(before)


def in_disguise(plain: list[str], uuids: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield credentials in every disguise, each with what it is."""
    for credential in plain:
        for name, disguise in DISGUISES.items():
            yield f"{credential} {name}", disguise(credential)
    for credential in uuids:
        for name, disguise in OF_UUIDS.items():
            yield f"{credential} {name}", disguise(credential)


@pytest.mark.parametrize("place", ["log", "audit log"])
def test_what_is_planted_in_a_log_is_found(deployment: Deployment, place: str) -> None:
    path = {"log": deployment.server.log, "audit log": deployment.audit_log}[place]
    planted = in_disguise([ODD], [deployment.shared_secret])
    missed = [name for name, form in planted if found_when_in(path, form, deployment) != [place]]
    assert missed == []
    assert found(deployment) == []


def test_what_is_planted_in_an_answer_is_found(deployment: Deployment) -> None:
    handed = Handed()
    handed.credentials = {credential: set() for credential in deployment.handed.credentials}
    secret = deployment.shares["link"].secret
    session = deployment.session_cookie
    plain = [ODD, PASSWORD, deployment.server.token, deployment.keys["owner"], secret, session]
    missed = []
    for name, form in in_disguise(plain, [secret, deployment.shared_secret]):
        handed.answers = {b"server: x\n\n<p>%b</p>" % form: "planted", b"nothing": "innocent"}
        if "planted" not in {asked for asked, _ in given_away(handed)}:
            missed.append(name)
    assert missed == []


def test_what_one_answer_hands_out_is_found_in_another() -> None:
    handed = Handed()
    handed.answered("create", b'{"secret":"tell-nobody"}')
    handed.secret("tell-nobody", b'{"secret":"tell-nobody"}')
    assert given_away(handed) == []
    handed.answered("read", b'{"secret":"tell-nobody","more":1}')
    assert given_away(handed) == [("read", b'{"secret":"tell-nobody","more":1}')]


def test_what_is_planted_in_a_compressed_object_is_found(deployment: Deployment) -> None:
    lines = "".join(f"line {number} is of no interest\n" for number in range(1000))
    body = pack(f"{lines}{ODD}".encode())
    assert ODD.encode() not in body

    async def planted() -> list[str]:
        store = await open_store(Settings(data_dir=deployment.data_dir).store_url)
        await store.put("planted", body)
        left = await traces(deployment)
        await store.delete(["planted"])
        await store.close()
        return places_with(deployment.handed.credentials, left)

    assert asyncio.run(planted()) == ["object planted"]

"""No credential of a whole run is in anything that the run left behind, but for where it was handed out."""

import asyncio
import base64
from collections.abc import Iterator
from urllib.parse import quote
from uuid import UUID

import pytest

from access_matrix.deployments import Deployment
from access_matrix.rights import CALLERS
from access_matrix.runs import ENTRIES, MatrixRun
from rpcshare.config import Settings
from rpcshare.storage import open_store

# Whose purpose it is to keep them, readable by their owner alone.
KEEPERS = {"admin-token", "shared-secret", "signing-key"}


def disguises(credential: str) -> Iterator[bytes]:
    """Yield the forms in which a credential could be written down."""
    plain = {
        credential.encode(),
        quote(credential).encode(),
        quote(credential, safe="").encode(),
        credential.encode("utf-16-le"),
    }
    try:
        value = UUID(credential)
    except ValueError:
        pass
    else:
        plain |= {value.bytes, value.hex.encode()}
    yield from plain
    yield credential[::-1].encode()
    for each in plain:
        for before in range(3):
            # In the middle of something else, it may begin at any of the three places of a group. Characters
            # at the ends depend on what is around it.
            whole = base64.b64encode(b"\0" * before + each + b"\0" * 3)
            middle = whole[(0, 2, 3)[before] : (before + len(each)) * 8 // 6]
            yield middle
            yield middle.translate(bytes.maketrans(b"+/", b"-_"))


def test_disguises_are_seen_through() -> None:
    token = "a+token/with?odd~bytes"
    for text in (token, quote(token), base64.b64encode(f"ab:{token}:c".encode()).decode()):
        assert any(form in f"before {text} after".encode() for form in set(disguises(token)))


@pytest.fixture(scope="module")
def whole(run: MatrixRun) -> MatrixRun:
    """The run, when everybody has asked for everything."""
    for entry in ENTRIES:
        for caller in CALLERS:
            run.answers(entry, caller)
    return run


async def traces(deployment: Deployment) -> dict[str, bytes]:
    """Return what a server has left behind, by where it is."""
    found = {"log": deployment.server.log.read_bytes(), "audit log": deployment.audit_log.read_bytes()}
    for path in deployment.data_dir.rglob("*"):
        if path.is_file() and path.name not in KEEPERS:
            found[f"file {path.name}"] = path.read_bytes()
    # The objects too, which may be in a file in pieces, or compressed.
    store = await open_store(Settings(data_dir=deployment.data_dir).store_url)
    async for found_object in store.scan(""):
        found[f"object {found_object.key}"] = found_object.body
    await store.close()
    return found


@pytest.mark.timeout(300)  # it may be what runs the whole matrix
def test_no_answer_holds_a_credential_but_the_one_that_hands_it_out(whole: MatrixRun) -> None:
    answers = whole.handed.answers
    assert len(answers) > 300
    assert len(whole.handed.credentials) > 100
    everything = b"\n".join(answers)
    given_away = []
    for credential, handed_out in whole.handed.credentials.items():
        for form in set(disguises(credential)):
            if everything.count(form) > sum(answer.count(form) for answer in handed_out & answers.keys()):
                given_away += [
                    (asked, answer[:80])
                    for answer, asked in answers.items()
                    if form in answer and answer not in handed_out
                ]
    assert given_away == []


@pytest.mark.timeout(300)
def test_no_log_and_nothing_that_is_kept_holds_a_credential(whole: MatrixRun) -> None:
    forms = {form for credential in whole.handed.credentials for form in disguises(credential)}
    for deployment in (whole.closed, whole.open):
        left = asyncio.run(traces(deployment))
        assert {"log", "audit log"} < left.keys()
        assert b"share.create" in left["audit log"]
        everything = b"\n".join(left.values())
        if any(form in everything for form in forms):
            assert [place for place, content in left.items() if any(form in content for form in forms)] == []

"""The search for credentials in what a run left behind, in whatever form they may be written down."""

import base64
import html
import json
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus
from uuid import UUID

import markupsafe

from access_matrix.deployments import Deployment, Handed
from rpcshare.config import Settings
from rpcshare.shares.objects import unpack
from rpcshare.storage import open_store

__all__ = ["disguises", "given_away", "places_with", "traces"]

# Whose purpose it is to keep them, readable by their owner alone.
KEEPERS = {"admin-token", "shared-secret", "signing-key"}


def disguises(credential: str) -> Iterator[bytes]:
    """Yield the forms in which a credential could be written down."""
    written = {
        credential,
        quote(credential),
        quote(credential, safe=""),
        quote_plus(credential),
        html.escape(credential),
        str(markupsafe.escape(credential)),
        json.dumps(credential)[1:-1],
    }
    plain = {each.encode() for each in written} | {credential.encode("utf-16-le")}
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


async def traces(deployment: Deployment) -> dict[str, bytes]:
    """Return what a server has left behind, by where it is."""
    found = {"log": deployment.server.log.read_bytes(), "audit log": deployment.audit_log.read_bytes()}
    for path in deployment.data_dir.rglob("*"):
        if path.is_file() and path.name not in KEEPERS:
            found[f"file {path.name}"] = path.read_bytes()
    # The objects too, which may be in a file in pieces, or compressed.
    store = await open_store(Settings(data_dir=deployment.data_dir).store_url)
    async for found_object in store.scan(""):
        found[f"object {found_object.key}"] = unpack(found_object.body)
    await store.close()
    return found


def given_away(handed: Handed) -> list[tuple[str, bytes]]:
    """Return which answers hold a credential that they do not hand out: what was asked, and their start."""
    everything = b"\n".join(handed.answers)
    found = []
    for credential, handed_out in handed.credentials.items():
        for form in set(disguises(credential)):
            if everything.count(form) > sum(
                answer.count(form) for answer in handed_out & handed.answers.keys()
            ):
                found += [
                    (asked, answer[:80])
                    for answer, asked in handed.answers.items()
                    if form in answer and answer not in handed_out
                ]
    return found


def places_with(credentials: Iterable[str], left: Mapping[str, bytes]) -> list[str]:
    """Return where any of the credentials is, of what was left by place."""
    forms = {form for credential in credentials for form in disguises(credential)}
    everything = b"\n".join(left.values())
    if not any(form in everything for form in forms):
        return []
    return [place for place, content in left.items() if any(form in content for form in forms)]

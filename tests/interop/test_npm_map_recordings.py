"""What is recorded for a mapper function, and what npm's capnweb sends for the same (map_recordings.mjs)."""

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rpcshare.rpc import JSON, UNDEFINED, BigInt, Promise, Session, Stub, stub

pytestmark = pytest.mark.node

NODE = Path(__file__).parent.parent / "node"

Function = Callable[[Promise, Stub, Promise], object]

# Under the names that they have in tests/node/map_recordings.mjs.
FUNCTIONS: dict[str, Function] = {
    "identity": lambda x, api, other: x,
    "property": lambda x, api, other: x.owner.name,
    "constant": lambda x, api, other: 5,
    "literals": lambda x, api, other: {
        "list": [1, "two", None, [True]],
        "when": datetime(2025, 9, 7, 3, 11, 29, 123000, UTC),
        "big": BigInt(5),
        "none": UNDEFINED,
    },
    "object": lambda x, api, other: {"id": x.id, "both": [x, x.name]},
    "call": lambda x, api, other: x.describe("short", {"deep": [x.id]}),
    "chained": lambda x, api, other: x.owner().rename("a").name,
    "callOfACapture": lambda x, api, other: api.users.nameOf(x.id),
    "captureAsAnArgument": lambda x, api, other: x.compare(other),
    "propertyOfACaptureAsAnArgument": lambda x, api, other: x.compare(other.first),
    "nested": lambda x, api, other: x.items.map(lambda item: item.name),
    "nestedInAnObject": lambda x, api, other: {
        "names": x.items.map(lambda item: {"name": item.name, "of": x.id})
    },
    "nestedWithACapture": lambda x, api, other: x.items.map(lambda item: api.join(x.id, item)),
    "nestedOverACapture": lambda x, api, other: other.list.map(lambda item: api.pair(x, item)),
    "nestedOverACall": lambda x, api, other: x.items(10).map(lambda item: item.price),
    "nestedThrice": lambda x, api, other: x.rows.map(
        lambda row: row.cells.map(lambda cell: api.cell(x.id, row.id, cell))
    ),
}


@pytest.fixture(scope="module")
def npm_recordings(node: str) -> dict[str, list[object]]:
    ran = subprocess.run(
        [node, "map_recordings.mjs"], cwd=NODE, capture_output=True, text=True, check=True, timeout=20
    )
    return json.loads(ran.stdout)


def sent(session: Session) -> list[object]:
    return [json.loads(JSON.encode(message)) for message in session.take_output()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_recording_is_what_npm_makes_of_the_same_function(
    name: str, npm_recordings: dict[str, list[object]]
) -> None:
    session = Session()
    api = session.remote_main
    other, values = api.other(), api.list(7)
    mapped = values.map(lambda x: FUNCTIONS[name](x, api, other))
    assert sent(session)[:3] == npm_recordings[name]
    mapped.dispose()


def test_so_is_one_for_a_property(npm_recordings: dict[str, list[object]]) -> None:
    session = Session()
    mapped = session.remote_main.list(7).rows.map(lambda x: x.id)
    assert sent(session)[:2] == npm_recordings["ofAProperty"]
    mapped.dispose()


async def test_so_is_one_with_a_callback(npm_recordings: dict[str, list[object]]) -> None:
    session = Session()
    values = session.remote_main.list(7)
    with stub(lambda value: value) as callback:
        mapped = values.map(lambda x: callback(x.id))
    assert sent(session) == npm_recordings["withACallback"]
    mapped.dispose()

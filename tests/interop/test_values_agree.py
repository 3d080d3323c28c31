"""Both sides write the same expression for the same value."""

import json
import subprocess
from pathlib import Path

import pytest
from agreed_values import VALUES

from rpcshare.rpc import JSON
from rpcshare.rpc.encoding import Encoder

pytestmark = pytest.mark.node

NODE = Path(__file__).parent.parent / "node"


@pytest.fixture(scope="module")
def expressions(node: str) -> dict[str, str]:
    """What npm's capnweb writes for each value, as JSON."""
    command = [node, "interop_serialize.mjs"]
    return json.loads(subprocess.run(command, cwd=NODE, capture_output=True, check=True).stdout)


def test_both_know_the_same_values(expressions: dict[str, str]) -> None:
    assert list(expressions) == list(VALUES)


@pytest.mark.parametrize("name", VALUES)
def test_both_write_the_same(expressions: dict[str, str], name: str) -> None:
    expression = Encoder(None, max_depth=256, raw_bytes=False).encode(VALUES[name])
    assert json.loads(JSON.encode(expression)) == json.loads(expressions[name])

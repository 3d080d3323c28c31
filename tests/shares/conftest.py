"""Shares of a service, and what a real opencode sent to one."""

import json
from pathlib import Path

import pytest

from support.service_fixtures import *  # noqa: F403 -- fixtures, which pytest finds by their names

RECORDING = Path(__file__).parent.parent / "fixtures" / "opencode-share-traffic.jsonl"


@pytest.fixture
def recorded_requests():
    """Return what a real opencode sent: see the note on its client."""
    return [json.loads(line) for line in RECORDING.read_text().splitlines()]

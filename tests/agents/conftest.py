import asyncio
from collections.abc import AsyncIterator

import pytest

from support.agents_in_process import AgentWorld
from support.records_fixtures import *  # noqa: F403 -- fixtures, which pytest finds by their names
from support.service_fixtures import *  # noqa: F403 -- likewise


@pytest.fixture
async def world(records, service, tmp_path) -> AsyncIterator[AgentWorld]:
    """Agents of one server, run by a script."""
    made = AgentWorld(records, service, tmp_path)
    yield made
    await made.node.close()
    await asyncio.sleep(0)

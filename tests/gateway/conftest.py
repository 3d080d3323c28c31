from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.gateway_fixtures import Gateway
from gateway.scripted_provider import ScriptedProvider


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider().serving() as provider:
        yield provider


@pytest.fixture
async def gateway(
    provider: ScriptedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    """A gateway with the tables ``acme`` (OpenAI's wire) and ``claude`` (Anthropic's), and one sandbox."""
    async with Gateway(provider, tmp_path, monkeypatch) as opened:
        yield opened

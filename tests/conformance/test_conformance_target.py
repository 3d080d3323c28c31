"""The cases against the target of this package, and against the same target made with npm's capnweb."""

from collections.abc import Iterator

import pytest

from conformance.servers import needs_npm, npm_target, over_websocket
from rpcshare.conformance.cases import load_cases
from rpcshare.conformance.runner import run_cases
from rpcshare.conformance.serving import serving


async def failures(url: str, **options: bool) -> list[object]:
    outcomes = [outcome async for outcome in run_cases(url, load_cases(), **options)]
    assert len(outcomes) > 80
    return [outcome.report() for outcome in outcomes if not outcome.passed]


async def test_our_target_passes_over_websocket():
    async with serving() as url:
        assert await failures(over_websocket(url)) == []


async def test_our_target_passes_over_http():
    async with serving() as url:
        assert await failures(url) == []


async def test_our_target_passes_in_messagepack():
    async with serving() as url:
        assert await failures(over_websocket(url), messagepack=True) == []


@pytest.fixture(scope="module")
def npm() -> Iterator[str]:
    with npm_target() as url:
        yield url


@pytest.mark.node
@needs_npm
async def test_the_target_made_with_npm_capnweb_passes_over_websocket(npm):
    assert await failures(over_websocket(npm)) == []


@pytest.mark.node
@needs_npm
async def test_the_target_made_with_npm_capnweb_passes_over_http(npm):
    assert await failures(npm) == []

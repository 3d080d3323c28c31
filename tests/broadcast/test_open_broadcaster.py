"""The URLs that name a broadcaster."""

import pytest

from rpcshare.broadcast import LocalBroadcaster, open_broadcaster


@pytest.mark.parametrize("url", ["local://", "LOCAL://"])
async def test_local(url: str) -> None:
    assert isinstance(await open_broadcaster(url), LocalBroadcaster)


@pytest.mark.parametrize("url", ["nats://localhost", "localhost", "", "local://name"])
async def test_other_urls_are_refused_with_what_would_be_right(url: str) -> None:
    with pytest.raises(ValueError, match="local://"):
        await open_broadcaster(url)


async def test_a_refusal_does_not_repeat_what_may_be_a_credential() -> None:
    with pytest.raises(ValueError, match="supported") as refusal:
        await open_broadcaster("amqp://user:hunter2@host/")
    assert "hunter2" not in str(refusal.value)

"""The URLs that name a broadcaster."""

import pytest

from rpcshare.broadcast import LocalBroadcaster, open_broadcaster
from rpcshare.broadcast.redis_location import RedisLocation


@pytest.mark.parametrize("url", ["local://", "LOCAL://"])
async def test_local(url: str) -> None:
    assert isinstance(await open_broadcaster(url, store_id="5" * 32, secret=bytes(32)), LocalBroadcaster)


@pytest.mark.parametrize("url", ["nats://localhost", "localhost", "", "local://name"])
async def test_other_urls_are_refused_with_what_would_be_right(url: str) -> None:
    with pytest.raises(ValueError, match="local://"):
        await open_broadcaster(url, store_id="5" * 32, secret=bytes(32))


async def test_a_refusal_does_not_repeat_what_may_be_a_credential() -> None:
    with pytest.raises(ValueError, match="supported") as refusal:
        await open_broadcaster("amqp://user:hunter2@host/", store_id="5" * 32, secret=bytes(32))
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("scheme", "rest", "location"),
    [
        ("redis", "//redis", RedisLocation(host="redis")),
        ("redis", "//10.0.0.1:6380/2", RedisLocation(host="10.0.0.1", port=6380, database=2)),
        ("redis", "//[::1]:6379/", RedisLocation(host="::1")),
        ("redis", "//:p%40ss@redis/1", RedisLocation(host="redis", password="p@ss", database=1)),
        (
            "rediss",
            "//me:pw@redis",
            RedisLocation(host="redis", username="me", password="pw", is_encrypted=True),
        ),
        (
            "rediss",
            "//redis/0?ca_file=/etc/ca.pem",
            RedisLocation(host="redis", is_encrypted=True, ca_file="/etc/ca.pem"),
        ),
    ],
)
def test_redis(scheme: str, rest: str, location: RedisLocation) -> None:
    assert RedisLocation.parse(scheme, rest) == location


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis:", "redis://HOST:PORT/DB"),
        ("redis://", "redis://HOST:PORT/DB"),
        ("redis://:hunter2@", "redis://HOST:PORT/DB"),
        ("redis://host:hunter2/0", "redis://HOST:PORT/DB"),
        ("redis://host/hunter2", "the database is a number"),
        ("redis://:hunter2/3@host/0", "redis://HOST:PORT/DB"),
        ("redis://:hunter2#3@host/0", "redis://HOST:PORT/DB"),
        ("redis://host/0?password=hunter2", "ca_file=PATH"),
        ("redis://host/0?ca_file=hunter2", "ca_file=PATH"),
        ("rediss://host/0?hunter2", "rediss://HOST:PORT/DB"),
        ("rediss://host/0?ca_file=", "ca_file=PATH"),
    ],
)
async def test_redis_without_sense_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        await open_broadcaster(url, store_id="5" * 32, secret=bytes(32))
    assert "hunter2" not in str(refusal.value)


def test_redis_is_shown_without_its_password() -> None:
    location = RedisLocation.parse("rediss", "//me:hunter2@[::1]:6380/2")
    assert str(location) == repr(location) == "rediss://[::1]:6380/2"

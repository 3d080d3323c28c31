"""The URLs that name a store."""

import os
from pathlib import Path

import pytest

from rpcshare.storage import MemoryStore, SqliteStore, StoreError, open_store


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def is_file(path: str | Path) -> bool:
    return Path(path).is_file()


@pytest.mark.parametrize("url", ["memory://", "MEMORY://"])
async def test_memory(url: str) -> None:
    assert isinstance(await open_store(url), MemoryStore)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///store.db", "store.db"),
        ("sqlite:///.rpcshare/store.db", ".rpcshare/store.db"),
        ("sqlite:store.db", "store.db"),
        ("SQLite:///store.db", "store.db"),
        ("sqlite:///my%20shares%3F%23%25.db", "my shares?#%.db"),
        ("sqlite:///caf%C3%A9.db", "café.db"),
        ("sqlite:///café.db", "café.db"),
    ],
)
async def test_sqlite_with_a_relative_path(url: str, path: str) -> None:
    store = await open_store(url)
    await store.close()
    assert isinstance(store, SqliteStore)
    assert is_file(path)


@pytest.mark.parametrize("form", ["sqlite:///{}", "sqlite:{}"])
async def test_sqlite_with_an_absolute_path(form: str, tmp_path: Path) -> None:
    path = tmp_path / "absolute" / "store.db"
    assert path.is_absolute()
    await (await open_store(form.format(path))).close()
    assert is_file(path)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://localhost", "supported: memory://, sqlite:///PATH, s3://BUCKET/PREFIX"),
        ("store.db", "supported: memory://, sqlite:///PATH, s3://BUCKET/PREFIX"),
        ("", "supported: memory://, sqlite:///PATH, s3://BUCKET/PREFIX"),
        ("memory://name", "its URL is memory://"),
        ("memory:", "its URL is memory://"),
        ("sqlite:", "needs the path"),
        ("sqlite:///", "needs the path"),
        ("sqlite://store.db", "third slash"),
        ("sqlite:///a%00b", "needs the path"),
        ("sqlite:///store.db?mode=ro", "no query"),
        ("sqlite:///store.db#1", "no query"),
        ("s3://", "needs the name of a bucket"),
    ],
)
async def test_other_urls_are_refused_with_what_would_be_right(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        await open_store(url)
    assert os.listdir() == []  # noqa: PTH208 -- of the working directory


async def test_a_refusal_does_not_repeat_what_may_be_a_credential() -> None:
    with pytest.raises(ValueError, match="supported") as refusal:
        await open_store("ftp://user:hunter2@host/")
    assert "hunter2" not in str(refusal.value)


async def test_a_store_that_cannot_be_opened_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open the store"):
        await open_store(f"sqlite:///{tmp_path}")

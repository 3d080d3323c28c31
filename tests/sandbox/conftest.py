import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rpcshare.sandbox.bubblewrap import BubblewrapDriver
from rpcshare.sandbox.driver import SandboxError
from sandbox.places import USER, Places


@pytest.fixture
def places() -> Iterator[Places]:
    """Directories for one sandbox. The path of a socket has room for 107 bytes, so it is a short one."""
    with tempfile.TemporaryDirectory(prefix="rpcs-") as folder:
        yield Places(Path(folder))


@pytest.fixture
async def driver() -> AsyncIterator[BubblewrapDriver]:
    """The driver ``local``, if it works here."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    driver = BubblewrapDriver(user=USER)
    try:
        await driver.check()
    except SandboxError as exc:
        pytest.skip(f"bubblewrap does not run here: {exc}")
    yield driver
    await driver.close()

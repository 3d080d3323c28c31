"""Fixtures for every test."""

import inspect
import signal
from collections.abc import Iterator

import anyio
import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from rpcshare.compiled import PACKAGE, core, extension_modules, mismatch
from support.running_server import RunningServer

# A shell has the commands ignore interrupts that it runs beside it (``&`` in a script), and so do their
# children: without this, no process of a test would hear of one there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a machine that is busy otherwise, a server is not given a processor for seconds.
DEFAULT_TIMEOUT_CONFIG.connect = DEFAULT_TIMEOUT_CONFIG.read = DEFAULT_TIMEOUT_CONFIG.write = 30.0


def pytest_configure() -> None:
    if extension_modules(PACKAGE) and (wrong := mismatch(PACKAGE)) is not None:
        pytest.exit(f"the compiled core is not used ({wrong}): run `make install`", returncode=4)


class _Scheduling(LoadFileScheduling):
    """Files beside each other, but those that share expensive fixtures in one process."""

    def _split_scope(self, nodeid: str) -> str:
        folder = "tests/access_matrix/"
        return folder if nodeid.startswith(folder) else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Scheduling:
    return _Scheduling(config, log)


# What takes longest as a whole begins first, so that no process is left with it when the others are done.
_FIRST = (
    "tests/access_matrix/",
    "tests/trust/",
    "tests/clients_ts/",
    "tests/browser/",
    "tests/server/test_openapi.py",
    "tests/fork/",
    "tests/rpc/test_values.py",
    "tests/model/",
    "tests/crash/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        found = (n for n, start in enumerate(_FIRST) if item.nodeid.startswith(start))
        return next(found, len(_FIRST))

    items.sort(key=place)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    is_marked = metafunc.definition.get_closest_marker("on_trio_too") is not None
    if is_marked and inspect.iscoroutinefunction(metafunc.function):
        metafunc.fixturenames.append("event_loop_kind")
        metafunc.parametrize("event_loop_kind", ["asyncio", "trio"])


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if pyfuncitem.funcargs.get("event_loop_kind") != "trio":
        return None  # pytest-asyncio runs it
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def run() -> None:
        await inspect.unwrap(pyfuncitem.obj)(**arguments)

    anyio.run(run, backend="trio")
    return True


@pytest.fixture(scope="session", autouse=True)
def _no_profiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the servers out that who runs the tests has signed in to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


def pytest_report_header() -> str:
    return f"RPC core: {core()}"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all tests, which keep apart by session id. It is not to be stopped."""
    with RunningServer(tmp_path_factory.mktemp("server") / "data") as server:
        yield server

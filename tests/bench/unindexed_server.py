"""``rpcshare serve``, which indexes nothing that is shared."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rpcshare.cli import main
from rpcshare.server import run


@asynccontextmanager
async def _nothing(*_arguments: object) -> AsyncIterator[None]:
    yield None


vars(run).update(opened_database=_nothing)

main()

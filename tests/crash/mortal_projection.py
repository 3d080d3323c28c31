"""``rpcshare serve`` that kills itself before the statement of its database that ``$DIE_AT`` numbers.

Only statements that write are counted, and commits, from when the file ``$BEGIN`` is there: what a start
writes may be done before a client has connected.
"""

import os
import signal
from itertools import count
from pathlib import Path

from sqlalchemy import Engine, event

from rpcshare.cli import main
from rpcshare.database.load import DatabaseLoad
from rpcshare.server import run

DIE_AT = int(os.environ["DIE_AT"])
BEGIN = Path(os.environ["BEGIN"])
WRITES = ("INSERT", "UPDATE", "DELETE")

_numbers = count(1)


def _step(*_arguments: object) -> None:
    if BEGIN.exists() and next(_numbers) == DIE_AT:
        os.kill(os.getpid(), signal.SIGKILL)


def _statement(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
    if statement.lstrip().upper().startswith(WRITES):
        _step()


class _MortalLoad(DatabaseLoad):
    def watch(self, engine: Engine) -> None:
        """Have the process die as ``engine`` is given its statements."""
        super().watch(engine)
        event.listen(engine, "before_cursor_execute", _statement)
        event.listen(engine, "commit", _step)


vars(run).update(DatabaseLoad=_MortalLoad)

main()

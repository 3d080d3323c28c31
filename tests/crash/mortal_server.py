"""``rpcshare serve`` that kills itself at the step of steps.py whose name is in the file ``$DIE_AT``.

It looks for that file at every operation, so a test can have it do other things first. The file is gone
when it dies. Times and sizes are so small that little work makes it compact and sweep.
"""

import os
import signal
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "shares"))

from crash.steps import STEPS, Moment, Operation, Step
from rpcshare.broadcast import open_broadcaster
from rpcshare.cli import main
from rpcshare.server import backends, run
from rpcshare.shares import LogSettings
from rpcshare.shares.compaction import CompactionPolicy
from rpcshare.storage import open_store
from support.share_stores import WrappedStore

COMPACTION = CompactionPolicy(tail_size=0, tail_ratio=0.0, tail_entries=5)

DIE_AT = Path(os.environ["DIE_AT"])


def step_of(operation: Operation) -> Step | None:
    """Return the step to die at, if it is one of this operation."""
    if not DIE_AT.exists():
        return None
    step = STEPS[DIE_AT.read_text()]
    return step if step.matches(operation) else None


def die() -> None:
    DIE_AT.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


class MortalStore(WrappedStore):
    async def put(self, key, body, *, if_absent=False, if_match=None):
        async def run():
            return await self.inner.put(key, body, if_absent=if_absent, if_match=if_match)

        return await self.step(Operation("put", [key], body, is_first=if_absent), run)

    async def delete(self, keys):
        return await self.step(Operation("delete", keys), lambda: self.inner.delete(keys))

    async def step(self, operation, run):
        if (step := step_of(operation)) is None:
            return await run()
        if step.moment is Moment.HALFWAY:
            await self.inner.delete(operation.keys[::2])
        elif step.moment is Moment.AFTER:
            await run()
        return die()


class MortalBroadcaster:
    def __init__(self, inner):
        self.subscribe, self.check, self.close = inner.subscribe, inner.check, inner.close
        self.send, self.listen = inner.send, inner.listen
        self.inner = inner

    async def publish(self, message):
        step = step_of(Operation("publish"))
        if step is not None and step.moment is Moment.BEFORE:
            die()
        await self.inner.publish(message)
        if step is not None:
            die()


async def open_mortal_store(*arguments, **options):
    return MortalStore(await open_store(*arguments, **options))


async def open_mortal_broadcaster(*arguments, **options):
    return MortalBroadcaster(await open_broadcaster(*arguments, **options))


backends.open_store = open_mortal_store
backends.open_broadcaster = open_mortal_broadcaster
vars(run).update(LogSettings=partial(LogSettings, grace=0.1, trusted_for=0.05, compaction=COMPACTION))

main()

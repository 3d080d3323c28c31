"""Stores that behave as badly as real ones do, for tests of what depends on that."""

import asyncio
import random

from rpcshare.storage import MemoryStore, StoreError


class WrappedStore:
    """Passes every call on to ``inner`` by way of :meth:`call`, in which subclasses misbehave."""

    def __init__(self, inner=None):
        self.inner = inner or MemoryStore()

    async def call(self, name, arguments, run):
        return await run()

    async def get(self, key):
        return await self.call("get", key, lambda: self.inner.get(key))

    async def put(self, key, body, *, if_absent=False, if_match=None):
        async def run():
            return await self.inner.put(key, body, if_absent=if_absent, if_match=if_match)

        return await self.call("put", key, run)

    async def delete(self, keys):
        return await self.call("delete", keys, lambda: self.inner.delete(keys))

    async def list(self, prefix, *, start_after=""):
        async def run():
            return [info async for info in self.inner.list(prefix, start_after=start_after)]

        for info in await self.call("list", prefix, run):
            yield info

    async def scan(self, prefix, *, start_after=""):
        async def run():
            return [found async for found in self.inner.scan(prefix, start_after=start_after)]

        for found in await self.call("scan", prefix, run):
            yield found

    async def check(self):
        await self.call("check", "", self.inner.check)

    async def close(self):
        await self.inner.close()


class RecordingStore(WrappedStore):
    """Remembers every call, and counts the bytes that are put."""

    def __init__(self, inner=None):
        super().__init__(inner)
        self.calls = []
        self.puts = []  # key and size of each
        self.bytes_put = 0

    async def call(self, name, arguments, run):
        self.calls.append((name, arguments))
        return await run()

    async def put(self, key, body, *, if_absent=False, if_match=None):
        self.puts.append((key, len(body)))
        self.bytes_put += len(body)
        return await super().put(key, body, if_absent=if_absent, if_match=if_match)


class YieldingStore(WrappedStore):
    """Lets others run before and after each operation, in an order that ``seed`` decides."""

    def __init__(self, inner=None, seed=0):
        super().__init__(inner)
        self.random = random.Random(seed)

    async def call(self, name, arguments, run):
        await self.pause()
        try:
            return await run()
        finally:
            await self.pause()

    async def pause(self):
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)


class GatedStore(WrappedStore):
    """Holds back the operations that ``holds(name, arguments)`` chooses until :meth:`open`.

    With ``after`` they are carried out at once, and only their result is held back. Unless it is armed, none
    is held back.
    """

    def __init__(self, holds, inner=None, *, after=False):
        super().__init__(inner)
        self.holds = holds
        self.after = after
        self.gate = asyncio.Event()
        self.reached = asyncio.Event()
        self.is_armed = True

    async def call(self, name, arguments, run):
        if not self.is_armed or not self.holds(name, arguments):
            return await run()
        result = await run() if self.after else None
        self.reached.set()
        await self.gate.wait()
        return result if self.after else await run()

    def open(self):
        self.gate.set()


class FailingStore(WrappedStore):
    """Fails the operations that ``fails(name, arguments)`` chooses, before or after doing them."""

    def __init__(self, fails, inner=None, *, after=False):
        super().__init__(inner)
        self.fails = fails
        self.after = after

    async def call(self, name, arguments, run):
        failing = self.fails(name, arguments)
        if failing and not self.after:
            raise StoreError("failed before it was done")
        result = await run()
        if failing:
            raise StoreError("failed after it was done")
        return result


class DyingStore(WrappedStore):
    """Stops working at its call number ``at``, like the store of a process that is killed then.

    With ``after`` that call is still carried out. A deletion of several objects dies half-way.
    """

    def __init__(self, inner, at, *, after):
        super().__init__(inner)
        self.left = at
        self.after = after
        self.has_died = False

    async def call(self, name, arguments, run):
        if self.has_died:
            raise StoreError("the process is dead")
        self.left -= 1
        if self.left > 0:
            return await run()
        self.has_died = True
        if self.after:
            await run()
        elif name == "delete":
            await self.inner.delete(arguments[::2])
        raise StoreError("the process is dead")


class FolderStore(WrappedStore):
    """Keeps objects as some S3 servers do, in files and folders: no key may be another's folder."""

    async def put(self, key, body, *, if_absent=False, if_match=None):
        parts = key.split("/")
        above = {"/".join(parts[:end]) for end in range(1, len(parts))}
        for other in self.inner._keys:
            if other in above or other.startswith(f"{key}/"):
                raise StoreError(f"{key} cannot be beside {other}")
        return await super().put(key, body, if_absent=if_absent, if_match=if_match)

    async def delete(self, keys):
        for key in keys:
            if any(other.startswith(f"{key}/") for other in self.inner._keys):
                raise StoreError(f"{key} is a folder")
        await super().delete(keys)


async def until(condition):
    """Let the tasks in the background run until ``condition()`` holds."""
    while not condition():  # noqa: ASYNC110 -- what they do there, they tell nobody
        await asyncio.sleep(0)


def contents(store):
    """Return the objects of a memory store by key, but those that tell of refused syncs."""
    return {key: found.body for key, found in store._objects.items() if not key.startswith("refusal/")}

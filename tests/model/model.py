"""What must hold of shares, whatever happens to the nodes that serve them.

- No sync that was acknowledged is lost, unless the store itself was put back to before it.
- Nothing that was ended comes back: a deleted share, a public one made private, a revoked key.
- No reader sees what nobody wrote to that share.
- Every share can be read.
- To a reader, syncCount and lastUpdated never go back without a snapshot.
- In the end, each owner is listed all shares of his, and no others, as they are, and what they take counts
  towards his limits.
"""

import asyncio
import contextlib
import copy
import json
import math
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from model.world import OWNERS, NodeContext, Site, World
from rpcshare.auth.api_keys import NewApiKey, UnknownApiKeyError
from rpcshare.auth.caller import ANONYMOUS, Caller
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.maintenance.doctor import examine
from rpcshare.maintenance.exporting import export_shares
from rpcshare.maintenance.findings import Problem
from rpcshare.maintenance.migration import migrate
from rpcshare.maintenance.restoring import restore_shares
from rpcshare.shares import objects
from rpcshare.shares.clock_steps import SteadyClock
from rpcshare.shares.events import Deleted, Snapshot, Sync
from rpcshare.shares.objects import Head
from rpcshare.shares.subscriptions import Subscription
from rpcshare.shares.syncdata import Item, Kind
from rpcshare.shares.usage import Usage

__all__ = ["Model", "ModelError"]

_DAY = 86_400_000  # milliseconds
_SESSIONS = [f"ses_model_{number:08}" for number in range(6)]
_KEPT_COPIES = 3  # of a store, to which it may be put back
_COMPARED_WITHIN = 700.0  # seconds: nodes compare stores and databases every 300
_TELL_TIME = (
    "catalogue_news",
    "catalogue_writer",
    "known_heads",
    "open_share",
    "pending_items",
    "projection",
    "refusals",
    "search_turns",
    "share_cache",
    "write_forwarding",
)


class ModelError(AssertionError):
    """Something that must hold does not."""


class Known:
    """What is known of one share on one site."""

    def __init__(self, owner: Caller) -> None:
        self.owner = owner
        self.acknowledged: set[str] = set()
        """Parts that every reader must see."""
        self.written: set[str] = set()
        """Parts that a reader may see."""
        self.is_private: bool | None = False
        """None: not known, for an answer was lost."""
        self.is_deleted: bool | None = False
        self.may_expire = False
        """It has, or may have, an end, by which clocks that are ahead delete it."""
        self.is_lost = False
        """The store was put back to before there was this share."""
        self.sync_count = 0
        """The greatest that a reader has been told; likewise the next."""
        self.last_updated = 0


class Reader:
    """A subscription, and what it has been told."""

    def __init__(self, site: Site, share_id: str, node: NodeContext, subscription: Subscription) -> None:
        self.site = site
        self.share_id = share_id
        self.node = node
        self.subscription = subscription
        self.parts: set[str] = set()
        self.sync_count = -1

    def read(self) -> None:
        """Take what there is."""
        while (event := self.subscription.take()) is not None:
            match event:
                case Snapshot():
                    self.parts = _parts_of(event.items)
                    self.sync_count = event.sync_count
                case Sync():
                    if event.sync_count <= self.sync_count:
                        raise ModelError(
                            f"a reader of {self.share_id} was told {event.sync_count} after {self.sync_count}"
                        )
                    self.parts |= _parts_of(event.items)
                    self.sync_count = event.sync_count
                case Deleted():
                    self.parts.clear()


def _parts_of(items: tuple[Item, ...]) -> set[str]:
    return {json.loads(body)["id"] for item in items if item.kind is Kind.PART for _, body in item.values}


class Model:
    """A world, and what is known of it."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.world = World(seed, folder)
        self.random = self.world.random
        self.steps = 0
        self.trace: list[str] = []
        """The last steps."""
        self.shares: dict[Site, dict[str, Known]] = {site: {} for site in self.world.sites}
        self.keys: dict[Site, dict[str, tuple[NewApiKey, bool]]] = {site: {} for site in self.world.sites}
        self.copies: dict[Site, list[tuple[dict[str, bytes], dict[str, Known]]]] = {
            site: [] for site in self.world.sites
        }
        self.lost: dict[Site, dict[str, set[str]]] = {site: {} for site in self.world.sites}
        """Generations of shares that a store lost, put back, and that nobody has ended or replaced since."""
        self.readers: list[Reader] = []
        self._steps: list[tuple[int, Callable[[Site], Awaitable[None]]]] = [
            (10, self.create),
            (40, self.sync),
            (8, self.sync_at_once),
            (4, self.lose_an_answer),
            (30, self.move_messages),
            (20, self.read),
            (8, self.subscribe),
            (5, self.change_visibility),
            (4, self.delete),
            (4, self.make_key),
            (3, self.revoke_key),
            (4, self.verify_keys),
            (4, self.step_clock),
            (3, self.restart),
            (2, self.keep_copy),
            (1, self.put_back),
            (1, self.put_back_what_was_ended),
            (2, self.migrate),
            (1, self.restore),
            (1, self.examine),
        ]

    async def run(self, steps: int) -> None:
        """Take so many steps, and look at everything.

        Raises:
            ModelError: something that must hold does not. The message ends with the last steps.
        """
        with _repeatable(self.world):
            await self._run(steps)

    async def _run(self, steps: int) -> None:
        weights, choices = zip(*self._steps, strict=True)
        await self.world.start()
        try:
            for _ in range(steps):
                self.steps += 1
                self.world.now += self.random.randrange(500)
                (step,) = self.random.choices(choices, weights)
                site = self.random.choice(self.world.sites)
                self.note(step.__name__, site)
                for each in self.world.sites:
                    self._learn_of_expiry(each)
                async with asyncio.timeout(60):
                    await step(site)
            for site in self.world.sites:
                await self.look_at_all(site)
                await self.look_at_listings(site)
        except Exception as exc:
            told = "\n".join(self.trace[-40:])
            raise ModelError(f"step {self.steps}: {type(exc).__name__}: {exc}\n{told}") from exc
        finally:
            await self.world.close()

    def note(self, *what: object) -> None:
        """Add to the trace."""
        told = " ".join(each.name if isinstance(each, Site) else str(each) for each in what)
        self.trace.append(f"{self.steps}: {told}")
        del self.trace[:-200]

    # What users do

    async def create(self, site: Site) -> None:
        caller, session = self.random.choice(OWNERS), self.random.choice(_SESSIONS)
        part = self.new_part()
        node = self.random.choice(site.nodes)
        # What has expired by the clocks of others is removed by them, and rightly so.
        options = {"expiresIn": "60d"} if node.offset >= 0 and self.random.random() < 0.2 else None
        before = _heads(site)
        try:
            made = await node.service.create(caller, session, [_part(part)], options)
        except ShareError as exc:
            # Where the place of a lost share is kept, or a clock is ahead.
            if exc.code in (ErrorCode.SHARE_GONE, ErrorCode.STORAGE_UNAVAILABLE):
                self.note("refused", exc.code)
                for each in self.shares[site].values():
                    each.written.add(part)
                    each.may_expire |= options is not None
                return
            raise
        known = self.shares[site].get(made.id)
        was, now = before.get(made.id), _heads(site).get(made.id)
        has_expired = known is not None and known.may_expire and site.was_ahead and was and now != was
        is_another = has_expired and now is not None and was is not None and now.generation != was.generation
        if known is None or known.is_deleted is not False or known.is_lost or is_another:
            known = self.shares[site][made.id] = self._anew(known, caller)
        if now is not None and (was is None or was.generation != now.generation):
            self.lost[site].pop(made.id, None)  # it has been replaced
        self.note("created", made.id, part)
        if known.owner is not caller:
            raise ModelError(f"share {made.id} of {known.owner.subject} was given to {caller.subject}")
        known.written.add(part)
        known.acknowledged.add(part)
        known.may_expire |= options is not None

    def _anew(self, known: Known | None, owner: Caller) -> Known:
        made = Known(owner)
        if known is not None and (known.is_deleted is None or known.is_lost):
            # It may be the former one.
            made.written, made.is_private = known.written, None
            made.may_expire = known.may_expire
        return made

    async def sync(self, site: Site) -> None:
        if (chosen := self.choose(site)) is not None:
            node = self.random.choice(site.nodes)
            node.endpoint.has_forwarded = False
            await self._sync(site, node, *chosen)

    async def _sync(self, site: Site, node: NodeContext, share_id: str, known: Known) -> None:
        part = self.new_part()
        known.written.add(part)
        try:
            try:
                await node.service.sync(known.owner, share_id, None, [_part(part)])
            except ShareError as exc:
                if exc.code is not ErrorCode.SHARE_NOT_FOUND:
                    raise
                # A node that has a former share of the id open refuses what may have been meant for that.
                await node.service.sync(known.owner, share_id, None, [_part(part)])
        except ShareError as exc:
            self._check_refusal(share_id, known, exc, node)
        else:
            known.acknowledged.add(part)
            self.note("synced", share_id, part, "at node", site.nodes.index(node))

    async def sync_at_once(self, site: Site) -> None:
        if (chosen := self.choose(site)) is None:
            return
        nodes = [self.random.choice(site.nodes) for _ in range(self.random.randrange(2, 6))]
        for node in nodes:
            node.endpoint.has_forwarded = False
        await asyncio.gather(*(self._sync(site, node, *chosen) for node in nodes))

    async def lose_an_answer(self, site: Site) -> None:
        node = self.random.choice(site.nodes)
        node.store.loses_answer = True
        if (chosen := self.choose(site)) is not None:
            await self._sync(site, node, *chosen)
        node.store.loses_answer = node.store.has_lost_answer = False

    async def move_messages(self, site: Site) -> None:
        for _ in range(self.random.randrange(1, 4)):
            self.world.bus.move(sorted(self.shares[site]))
        await asyncio.sleep(0)

    async def read(self, site: Site) -> None:
        if (chosen := self.choose(site, deleted_too=True)) is not None:
            await self.look_at(site, self.random.choice(site.nodes), *chosen)

    async def subscribe(self, site: Site) -> None:
        self.readers = [reader for reader in self.readers if not reader.subscription.is_over][-20:]
        if (chosen := self.choose(site)) is None:
            return
        share_id, known = chosen
        node = self.random.choice(site.nodes)
        try:
            subscription = await node.service.subscribe(
                known.owner, share_id, self.random.choice([None, 0, known.sync_count])
            )
        except ShareError as exc:
            self._check_refusal(share_id, known, exc, node)
        else:
            reader = Reader(site, share_id, node, subscription)
            # One that comes back has what came before.
            reader.parts = set(known.written)
            self.readers.append(reader)

    async def change_visibility(self, site: Site) -> None:
        if (chosen := self.choose(site)) is None:
            return
        share_id, known = chosen
        node = self.random.choice(site.nodes)
        is_private = self.random.random() < 0.7
        was, known.is_private = known.is_private, None
        try:
            options = {"visibility": "private" if is_private else "link"}
            await node.service.update(known.owner, share_id, None, options)
        except ShareError as exc:
            known.is_private = was if exc.code is not ErrorCode.STORAGE_UNAVAILABLE else None
            self._check_refusal(share_id, known, exc, node)
        else:
            known.is_private = is_private
            self.note("private" if is_private else "open", share_id)

    async def delete(self, site: Site) -> None:
        if (chosen := self.choose(site)) is None:
            return
        share_id, known = chosen
        node = self.random.choice(site.nodes)
        head = _heads(site).get(share_id)
        try:
            await node.service.delete(known.owner, share_id, None)
        except ShareError as exc:
            self._check_refusal(share_id, known, exc, node)
            known.is_deleted = known.is_deleted or None
        else:
            known.is_deleted = True
            if head is not None:
                self.lost[site].get(share_id, set()).discard(head.generation)
            self.note("deleted", share_id)

    async def make_key(self, site: Site) -> None:
        made = await self.random.choice(site.nodes).keys.create("laptop")
        self.keys[site][made.kept.id] = (made, False)

    async def revoke_key(self, site: Site) -> None:
        if self.keys[site]:
            key_id = self.random.choice(sorted(self.keys[site]))
            made, is_revoked = self.keys[site][key_id]
            try:
                await self.random.choice(site.nodes).keys.revoke(key_id)
            except UnknownApiKeyError:
                if not is_revoked:  # one that was may be gone with what was put back
                    raise
            self.keys[site][key_id] = (made, True)

    async def verify_keys(self, site: Site) -> None:
        verifier = self.random.choice(site.nodes).verifier
        await verifier.refresh()
        for made, is_revoked in self.keys[site].values():
            try:
                caller = await verifier.verify(Credential(CredentialKind.TOKEN, made.key))
            except ShareError as exc:
                if exc.code is not ErrorCode.UNAUTHORIZED or not is_revoked:
                    raise
            else:
                if is_revoked and caller is not None:
                    raise ModelError(f"key {made.kept.id} is good again")

    # What befalls them

    async def step_clock(self, site: Site) -> None:
        days = self.random.choice([-90, -2, 0, 0, 2, 90])
        self.random.choice(site.nodes).offset = days * _DAY
        site.was_ahead = site.was_ahead or days == 90

    async def restart(self, site: Site) -> None:
        async with site.stopped():
            self._end_readers(site)

    async def keep_copy(self, site: Site) -> None:
        kept = self.copies[site]
        kept.append((site.contents(), copy.deepcopy(self.shares[site], {id(o): o for o in OWNERS})))
        del kept[:-_KEPT_COPIES]

    async def put_back(self, site: Site) -> None:
        """Somebody puts the whole store back, with servers at work or not."""
        if not self.copies[site]:
            return
        old, then = self.random.choice(self.copies[site])
        before = _heads(site)
        if is_running := self.random.random() < 0.5:
            # What a server deletes because of a snapshot, it may delete from an older copy that takes the
            # place of the store in that moment: no store deletes one object only if there is another.
            await site.settle()
            await site.put_back(old)
        else:
            async with site.stopped():
                await site.put_back(old)
        self._end_readers(site)
        self.note("put back", "running" if is_running else "stopped")
        heads = _heads(site)
        for share_id, known in self.shares[site].items():
            was, now = before.get(share_id), heads.get(share_id)
            known.sync_count = known.last_updated = 0
            if known.is_deleted:
                if now and not now.deleted and now.generation in self.lost[site].get(share_id, ()):
                    # Another was ended, which had come into its place by a migration.
                    known.is_deleted, known.is_private, known.is_lost = None, None, True
                    known.acknowledged = set()
                    known.written |= then[share_id].written if share_id in then else set()
                continue
            if share_id in then and was and now and was.generation == now.generation and not now.deleted:
                known.acknowledged &= then[share_id].acknowledged
                known.is_private = known.is_private if was.revision else None
            else:
                if was and not was.deleted and not (now and now.generation == was.generation):
                    self.lost[site].setdefault(share_id, set()).add(was.generation)
                known.acknowledged, known.is_private = set(), None
                known.is_lost = True
                # One of another generation, which nobody has ended, may be what is there now.
                known.written |= then[share_id].written if share_id in then else set()
        for key_id, (made, is_revoked) in list(self.keys[site].items()):
            if f"auth/key/{key_id}" not in old and not is_revoked:
                del self.keys[site][key_id]
                self.note("key", made.kept.id, "is lost")
        await self.look_at_all(site)

    async def put_back_what_was_ended(self, site: Site) -> None:
        """Somebody puts heads and keys back, and what belongs to deleted shares."""
        if not self.copies[site]:
            return
        old, _ = self.random.choice(self.copies[site])
        ended = {share_id for share_id, known in self.shares[site].items() if known.is_deleted}
        heads = _heads(site)
        same = {
            share_id
            for share_id, head in heads.items()
            if (body := old.get(objects.head_key(share_id))) is not None
            and objects.decode_head(body).generation == head.generation
        }
        async with site.stopped():
            for key, body in old.items():
                kind, share_id, *_ = [*key.split("/"), ""]
                is_theirs = kind == "share" and share_id in ended
                if is_theirs or (key.endswith("/head") and share_id in same) or key.startswith("auth/"):
                    await site.store.put(key, body)
        self._end_readers(site)
        for share_id in sorted(same - ended):
            if share_id in self.shares[site] and not heads[share_id].revision:
                self.shares[site][share_id].is_private = None
        await self.look_at_all(site)

    async def migrate(self, site: Site) -> None:  # noqa: C901, PLR0912 -- the order of the steps is what is modelled
        """A store is copied to the other, in either direction, again and again."""
        source = next(each for each in self.world.sites if each is not site)
        ours, theirs = _heads(source), _heads(site)
        async with site.stopped():
            migration = await migrate(source.store, site.store)
        self._end_readers(site)
        self.note("migrated", source, "to", site, migration.differing)
        for share_id, head in ours.items():
            known = self.shares[source].get(share_id)
            self._learn_of_migration(source, site, share_id, theirs.get(share_id))
            if known is None or known.is_lost:
                self._learn_of_lost(site, share_id, known, head)
                continue
            had, own = theirs.get(share_id), self.shares[site].get(share_id)
            if own is not None and own.is_lost:
                # What is there then depends on what the servers had seen; it may be somebody else's.
                own.written |= known.written
                own.may_expire |= known.may_expire
                own.is_private = None
                if head.generation == _heads(site)[share_id].generation:
                    own.owner = known.owner
            elif had is None or own is None:
                self.shares[site][share_id] = copied = copy.deepcopy(known, {id(o): o for o in OWNERS})
                copied.sync_count = copied.last_updated = 0
            elif had.generation == head.generation:
                own.written |= known.written
                if f"share/{share_id}/{head.generation}" not in "".join(migration.differing):
                    own.acknowledged |= known.acknowledged
                if known.is_deleted or own.is_deleted:
                    own.is_deleted = True
                elif known.is_deleted is None:
                    own.is_deleted = None
                if _both_changed(head, had):
                    either = {own.is_private, known.is_private}
                    own.is_private = True if True in either else None if None in either else False
                elif head.revision > had.revision:
                    own.is_private = known.is_private
                elif head.revision == had.revision and own.is_private is not known.is_private:
                    own.is_private = None
        there = source.contents()
        for key_id, (made, is_revoked) in self.keys[source].items():
            if f"auth/key/{key_id}" not in there:
                continue  # it was revoked, and is gone with what was put back
            was_revoked = self.keys[site].get(key_id, (made, False))[1]
            self.keys[site][key_id] = (made, is_revoked or was_revoked)
        await self.look_at_all(site)

    def _learn_of_lost(self, site: Site, share_id: str, known: Known | None, head: Head) -> None:
        """Take note of a share that came by a migration, and of which little is known."""
        made = copy.deepcopy(known or Known(OWNERS[0]), {id(o): o for o in OWNERS})
        own = self.shares[site].setdefault(share_id, made)
        own.is_lost = True
        own.is_private = None
        if known is not None:
            own.written |= known.written
            own.may_expire |= known.may_expire
            if head.generation == _heads(site)[share_id].generation:
                own.owner = known.owner

    def _learn_of_migration(self, source: Site, site: Site, share_id: str, had: Head | None) -> None:
        """Take note of what may have come with a share that was there, whatever it is in the source now."""
        known, own = self.shares[source].get(share_id), self.shares[site].get(share_id)
        if known is None or own is None or had is None:
            return
        own.may_expire |= known.may_expire
        log = f"share/{share_id}/{had.generation}/log/"
        bodies = [body for key, body in source.contents().items() if key.startswith(log)]
        if any(objects.decode_entry(body).is_tombstone for body in bodies):
            # It has been deleted there, and made anew: the deletion comes too, unless the logs do not fit.
            own.is_deleted = own.is_deleted or None

    async def restore(self, site: Site) -> None:
        """A backup of one store is restored into the other."""
        source = next(each for each in self.world.sites if each is not site)
        folder = self.world.folder / "backup"
        exported = await export_shares(source.store, folder)
        if exported.failures:
            raise ModelError(f"not exported: {exported.failures}")
        there = {path.name for path in (folder / "sessions").iterdir()}
        async with site.stopped():
            restored = await restore_shares(site.store, folder)
        await asyncio.to_thread(shutil.rmtree, folder)
        self._end_readers(site)
        self.note("restored", source, "to", site, restored)
        refused = {share_id for share_id, _ in restored.refused}
        for share_id in sorted(there - refused):
            known, own = self.shares[source][share_id], self.shares[site].get(share_id)
            if own is not None and own.is_deleted is False and not own.is_lost:
                continue  # it has not been touched
            self.shares[site][share_id] = copied = copy.deepcopy(known, {id(o): o for o in OWNERS})
            copied.sync_count = copied.last_updated = 0
            if own is not None:
                copied.written |= own.written if own.is_deleted is None or own.is_lost else set()
        await self.look_at_all(site)

    async def examine(self, site: Site) -> None:
        """Nothing is wrong that is not put right."""
        async with site.stopped():
            self._end_readers(site)
            report = await examine(site.store, fix=True, grace=0, patience=0, marks=site.marks)
        wrong = [
            finding
            for finding in report.findings
            if not finding.fixed and finding.problem is not Problem.ROLLED_BACK
        ]
        if wrong:
            raise ModelError(f"doctor: {wrong}")

    # What must hold

    async def look_at_all(self, site: Site) -> None:
        """Look at every key and every share of a site."""
        await self.verify_keys(site)
        for share_id, known in list(self.shares[site].items()):
            for node in site.nodes:
                await self.look_at(site, node, share_id, known)

    async def look_at_listings(self, site: Site) -> None:
        """Look whether listings have become what the store has, of which nobody may have told them."""
        await asyncio.sleep(_COMPARED_WITHIN)
        for node in site.nodes:
            for owner in OWNERS:
                page = await node.service.list_own(owner, limit=200)
                for listed in page.sessions:
                    now = await node.service.metadata(owner, listed.id)
                    if (listed.sync_count, listed.last_updated) != (now.sync_count, now.last_updated):
                        raise ModelError(f"{listed.id} is listed as it was at {listed.sync_count}")
                ids = {listed.id for listed in page.sessions}
                own = [share_id for share_id, head in _heads(site).items() if head.owner == owner.subject]
                there = {share_id for share_id in own if await _can_read(node, owner, share_id)}
                if ids != there or page.count != len(ids):
                    raise ModelError(
                        f"{owner.subject} is shown {page.count}: {sorted(ids)}, of {sorted(there)}"
                    )
                # What has expired, and is not removed yet, counts too.
                sizes = [await _size(node, share_id) for share_id in own]
                takes = Usage(sum(size is not None for size in sizes), sum(size or 0 for size in sizes))
                usage, _ = await node.service._shares.listing.usage(str(owner.subject))
                if usage != takes:
                    raise ModelError(f"{owner.subject} is said to take {usage}, and takes {takes}")

    async def look_at(self, site: Site, node: NodeContext, share_id: str, known: Known) -> None:
        """Look at a share as its owner, as anybody, and as those who watch it."""
        service = node.service
        try:
            session = json.loads(await service.agent_session(known.owner, share_id))
            metadata = await service.metadata(known.owner, share_id)
        except ShareError as exc:
            self._check_refusal(share_id, known, exc, node)
            return
        if known.is_deleted:
            raise ModelError(f"deleted share {share_id} is back")
        seen = {part["id"] for part in session["parts"]}
        if invented := seen - known.written:
            raise ModelError(f"share {share_id} shows what nobody wrote: {sorted(invented)}")
        if missing := known.acknowledged - seen:
            raise ModelError(f"share {share_id} has lost {sorted(missing)}")
        is_behind = metadata.sync_count < known.sync_count or metadata.last_updated < known.last_updated
        if is_behind and not known.is_lost:
            raise ModelError(
                f"share {share_id} went back from {known.sync_count}, {known.last_updated} to "
                f"{metadata.sync_count}, {metadata.last_updated}"
            )
        if metadata.last_updated < metadata.created_at:
            raise ModelError(f"share {share_id} was updated before it was made")
        known.sync_count, known.last_updated = metadata.sync_count, metadata.last_updated
        await self._look_as_anybody(node, share_id, known)
        for reader in self.readers:
            if reader.share_id == share_id and reader.site is site:
                self._look_at_reader(reader, known, seen if reader.node is node else None)

    async def _look_as_anybody(self, node: NodeContext, share_id: str, known: Known) -> None:
        try:
            await node.service.version(ANONYMOUS, share_id)
        except ShareError as exc:
            if exc.code is ErrorCode.UNAUTHORIZED and known.is_private is not False:
                return
            raise
        if known.is_private:
            raise ModelError(f"private share {share_id} is public again")

    def _look_at_reader(self, reader: Reader, known: Known, seen: set[str] | None) -> None:
        reader.read()
        if invented := reader.parts - known.written:
            raise ModelError(f"a reader of {reader.share_id} was told what nobody wrote: {sorted(invented)}")
        if seen is not None and not reader.subscription.is_over and (missing := seen - reader.parts):
            raise ModelError(f"a reader of {reader.share_id} was not told {sorted(missing)}")

    def _learn_of_expiry(self, site: Site) -> None:
        """Take note of shares that have been deleted because a clock was ahead: they stay so."""
        heads = _heads(site)
        for share_id, known in self.shares[site].items():
            head = heads.get(share_id)
            if head is None or not head.expired or known.is_lost or known.is_deleted:
                continue
            if not known.may_expire or not any(each.was_ahead for each in self.world.sites):
                raise ModelError(f"share {share_id} has expired, and was to stay")
            known.is_deleted = True

    def _check_refusal(self, share_id: str, known: Known, exc: ShareError, node: NodeContext) -> None:
        """Return if a share may be refused so."""
        self.note(share_id, "refused", exc.code)
        for site in self.world.sites:
            self._learn_of_expiry(site)
        match exc.code:
            case ErrorCode.SHARE_NOT_FOUND if known.is_deleted is not False or known.is_lost:
                return
            case ErrorCode.FORBIDDEN if known.is_lost:
                return  # what is there may be somebody else's
            case ErrorCode.SHARE_GONE if known.is_lost or (
                known.may_expire and (node.offset > 0 or known.is_deleted)
            ):
                return
            case ErrorCode.STORAGE_UNAVAILABLE if node.store.has_lost_answer or node.endpoint.has_forwarded:
                return  # a snapshot that was read anew may have what another node was asked to write
        raise exc

    # The means

    def choose(self, site: Site, *, deleted_too: bool = False) -> tuple[str, Known] | None:
        """Return a share of a site, if there is one."""
        choices = [
            share_id
            for share_id, known in self.shares[site].items()
            if deleted_too or (known.is_deleted is False and not known.is_lost)
        ]
        if not choices:
            return None
        share_id = self.random.choice(choices)
        return share_id, self.shares[site][share_id]

    def new_part(self) -> str:
        """Return the id of a part that nobody has written."""
        return f"p{next(self.world.names)}"

    def _end_readers(self, site: Site) -> None:
        for reader in self.readers:
            if reader.site is site:
                reader.read()
                reader.subscription.close()
        self.readers = [reader for reader in self.readers if reader.site is not site]


@contextlib.contextmanager
def _repeatable(world: World) -> Iterator[None]:
    """Leave nothing to chance but the seed: neither random ids, nor how soon a thread is done, nor time."""
    rng, began, began_at = world.random, world.now, time.monotonic()

    def monotonic() -> float:
        # Goes on from step to step: so timers fire, and nodes look again, at the same steps.
        return began_at + (world.now - began) / 1000

    async def to_thread(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        await asyncio.sleep(0)
        return work(*args, **options)

    # While all wait for a timer, time goes on until it is due.
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]  # of those that have one
    wait = selector.select

    def select(timeout: float | None = None) -> Any:
        events = wait(0 if timeout else timeout)
        if timeout and not events:
            world.now += math.ceil(timeout * 1000)
        return events

    clocks = [mock.patch(f"rpcshare.shares.{module}.monotonic", monotonic) for module in _TELL_TIME]
    with contextlib.ExitStack() as stack:
        for clock in clocks:
            stack.enter_context(clock)
        stack.enter_context(mock.patch.object(selector, "select", select))
        stack.enter_context(mock.patch("asyncio.to_thread", to_thread))
        stack.enter_context(mock.patch("time.monotonic", monotonic))
        stack.enter_context(mock.patch.object(SteadyClock.__init__, "__defaults__", (monotonic,)))
        stack.enter_context(mock.patch("secrets.token_hex", lambda size=32: rng.randbytes(size).hex()))
        stack.enter_context(mock.patch("secrets.randbits", rng.getrandbits))
        stack.enter_context(mock.patch("secrets.choice", rng.choice))
        yield


async def _can_read(node: NodeContext, owner: Caller, share_id: str) -> bool:
    try:
        await node.service.metadata(owner, share_id)
    except ShareError:
        return False
    return True


async def _size(node: NodeContext, share_id: str) -> int | None:
    """Return the bytes that a share holds; None if it is deleted."""
    try:
        share = await node.service.open_shares.take(share_id)
    except ShareError:
        return None
    try:
        return None if share.is_ended else share.state.content.size
    finally:
        node.service.open_shares.let_go(share_id)


def _part(part_id: str) -> dict[str, Any]:
    return {"type": "part", "data": {"id": part_id, "text": "text " * 20}}


def _both_changed(one: Head, other: Head) -> bool:
    """Whether each of two copies of a head has had settings changed that the other has not."""
    if not (one.changes and other.changes) or one.deleted or other.deleted:
        return False
    return one.changes[-1] not in other.changes and other.changes[-1] not in one.changes


def _heads(site: Site) -> dict[str, Head]:
    return {
        key.split("/")[1]: objects.decode_head(body)
        for key, body in site.contents().items()
        if key.startswith("share/") and key.endswith("/head")
    }

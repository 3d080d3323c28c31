"""What the pods of a driver are doing, as the cluster tells it: one list and one watch for all of them.

A watch ends now and then, and the version that it was to go on from may be too old (410): then the pods are
listed again, and those that are missing from the list have been deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from rpcshare.sandbox.cluster_api import FAILURES, ClusterAPI, ClusterError

__all__ = ["PodWatch", "ended", "failure_to_start", "why_ended"]

logger = logging.getLogger("rpcshare.sandbox")

Pod: TypeAlias = Mapping[str, Any]

_FIRST_DELAY, _LONGEST_DELAY = 0.2, 15.0
_GONE = 410
_ASK_EVERY = 5.0

# Of a container that waits, those that will not pass by waiting; an image may yet be pulled at the next try.
_HOPELESS = frozenset(
    (
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
        *("ErrImageNeverPull", "InvalidImageName"),
    )
)
_PULLING = frozenset({"ErrImagePull", "ImagePullBackOff"})


class PodWatch:
    """Keeps the newest state of each pod."""

    def __init__(self, api: ClusterAPI, selector: str) -> None:
        """Watch the pods that have certain labels, once it is open."""
        self._api = api
        self._selector = selector
        self._pods: dict[str, Pod] = {}
        self._changed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """List the pods, and watch them from there. Raises one of :data:`FAILURES`."""
        version = await self._list()
        self._watching = asyncio.ensure_future(self._watch(version))

    async def close(self) -> None:
        """Watch no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    @property
    def pods(self) -> Mapping[str, Pod]:
        """Those that there are, by name."""
        return self._pods

    async def until(
        self, name: str, is_so: Callable[[Pod | None], bool], *, asks: bool = False
    ) -> Pod | None:
        """Return a pod once something holds of it; None: it has been deleted, or is not there yet.

        Args:
            name: of the pod.
            is_so: what is to hold.
            asks: whether to list the pods every few seconds, too: a watch may hang without ending. For what
                takes a short time, as otherwise each pod would be a load on the cluster.
        """
        while not is_so(self._pods.get(name)):
            try:
                await asyncio.wait_for(self._changed.wait(), _ASK_EVERY if asks else None)
            except TimeoutError:
                with contextlib.suppress(*FAILURES, ValueError, LookupError):
                    await self._list()
        return self._pods.get(name)

    async def _list(self) -> str:
        found = await self._api.list_pods(self._selector)
        self._pods = {pod["metadata"]["name"]: pod for pod in found["items"]}
        self._tell()
        return str(found["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                async for event in self._api.watch_pods(self._selector, version):
                    version = self._take(event, version)
                    delay = _FIRST_DELAY
            except (*FAILURES, ValueError, LookupError) as exc:
                if not isinstance(exc, ClusterError) or exc.status != _GONE:
                    logger.warning("the pods of sandboxes cannot be watched: %s %s", type(exc).__name__, exc)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, _LONGEST_DELAY)
                with contextlib.suppress(*FAILURES, ValueError, LookupError):
                    version = await self._list()
            else:
                await asyncio.sleep(_FIRST_DELAY)  # a watch that ends at once is not to be a loop

    def _take(self, event: Mapping[str, Any], version: str) -> str:
        pod = event["object"]
        if event["type"] == "DELETED":
            self._pods.pop(pod["metadata"]["name"], None)
        elif event["type"] != "BOOKMARK":
            self._pods[pod["metadata"]["name"]] = pod
        self._tell()
        return str(pod["metadata"].get("resourceVersion", version))

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def ended(pod: Pod | None) -> bool:
    """Whether nothing of a pod runs any more."""
    return pod is None or pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def failure_to_start(pod: Pod, *, pulls: bool = False) -> str | None:
    """Return why a pod does not start; None, where it may still.

    Args:
        pod: as the cluster has it.
        pulls: whether an image that could not be pulled is one, too: the cluster goes on trying.
    """
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or ():
        waiting = container.get("state", {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in _HOPELESS or (pulls and reason in _PULLING):
            return f"{reason}: {waiting.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions") or ():
        if pulls and condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}".rstrip(": ")
    if ended(pod):
        reason, message = why_ended(pod)
        return f"{reason}: {message}".rstrip(": ") or "it ended at once"
    return None


def why_ended(pod: Pod | None) -> tuple[str, str]:
    """Return the cluster's reason for the end of a pod, such as ``OOMKilled``, and its message."""
    if pod is None:
        return "Deleted", "the pod was deleted"
    status = pod.get("status", {})
    if status.get("reason"):
        return str(status["reason"]), str(status.get("message", ""))
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return str(condition.get("reason", "")), str(condition.get("message", ""))
    for container in status.get("containerStatuses") or ():
        done = container.get("state", {}).get("terminated")
        if done:
            return str(done.get("reason", "")), str(done.get("message", ""))
    return "", ""

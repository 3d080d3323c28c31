"""A sandbox that is a pod."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rpcshare.sandbox.cluster_api import FAILURES, ClusterAPI, ClusterError, told
from rpcshare.sandbox.driver import EndReason, SandboxError, SandboxSpec
from rpcshare.sandbox.init_channel import forwarded_ports, init_message
from rpcshare.sandbox.pod_link import PodLink, PodLinkError
from rpcshare.sandbox.pod_manifest import PodSettings, pod_manifest, pod_name, secret_manifest
from rpcshare.sandbox.pod_watch import Pod, PodWatch, ended, failure_to_start, why_ended
from rpcshare.sandbox.supervision import SupervisedSandbox
from rpcshare.sandbox.syscall_filter import syscall_filter

__all__ = ["Cluster", "PodSandbox", "remove_pod"]

logger = logging.getLogger("rpcshare.sandbox")

_START_SECONDS = 300.0  # an image may have to be pulled, or a node to be made
_CONNECT_SECONDS = 60.0
_TRY_EVERY = 0.2
_SAID_SECONDS = 30.0
_REMOVAL_TRIES = 5
_BY_REASON = {"OOMKilled": EndReason.MEMORY, "DeadlineExceeded": EndReason.TIMEOUT}


@dataclass(frozen=True)
class Cluster:
    """Where pods are made."""

    api: ClusterAPI
    watch: PodWatch
    settings: PodSettings


class PodSandbox(SupervisedSandbox):
    """A command in a pod."""

    watch_every = 1.0
    start_seconds = 30.0

    def __init__(self, spec: SandboxSpec, cluster: Cluster) -> None:
        """Made by the driver."""
        super().__init__(spec)
        self._cluster = cluster
        self._pod_name = pod_name(spec.name, secrets.token_hex(4))
        self._token = secrets.token_hex(32)
        self._link = PodLink(self._token, dict(forwarded_ports(spec)))
        self._is_made = False
        self._making: asyncio.Future[None] | None = None
        self._killing: asyncio.Task[None] | None = None
        self._exceeds: EndReason | None = None
        self._why = ""

    async def start(self, etc: Sequence[Path]) -> None:
        """Start it; return once the command runs. Raises SandboxError."""
        spec, settings = self._spec, self._cluster.settings
        what = "the sandbox could not be started"
        if not spec.workspace.is_dir() or not spec.home.is_dir():
            raise SandboxError(f"{what}: its workspace or its home is not there")
        pod = pod_manifest(self._pod_name, spec, settings, etc)
        with told(what):
            secret = await asyncio.to_thread(
                secret_manifest, self._pod_name, spec, settings, self._token, etc
            )
            # If this is cancelled, they may come into being all the same; what removes them waits for it.
            self._making = asyncio.ensure_future(self._make(secret, pod))
            await asyncio.shield(self._making)
            address = await self._address()
            if self.socket_path is not None:
                await self._link.listen(self.socket_path)
            reader, writer = await self._connect(address)
        self._channel.open_streams(reader, writer, self._pod_message())
        await self._hear_start()
        self._supervise()

    def _pod_message(self) -> Mapping[str, object]:
        spec = self._spec
        message = init_message(spec, controlled={"memory", "pids", "cpu"}, ports=(), filter_=syscall_filter())
        ports = [port for port, _ in forwarded_ports(spec)]
        pod = {"serves": spec.port, "ports": ports, "processes": spec.limits.processes}
        return {**message, "serves": None, "pod": pod}

    async def _make(self, secret: Mapping[str, object], pod: Mapping[str, object]) -> None:
        self._is_made = True
        await self._cluster.api.create(secret)
        await self._cluster.api.create(pod)

    async def _address(self) -> str:
        """Return the address of the pod, once its container runs. Raises SandboxError."""

        def is_decided(pod: Pod | None) -> bool:
            return pod is not None and (_address_of(pod) is not None or failure_to_start(pod) is not None)

        watch, name = self._cluster.watch, self._pod_name
        try:
            pod = await asyncio.wait_for(watch.until(name, is_decided, asks=True), _START_SECONDS)
        except TimeoutError:
            pod = watch.pods.get(name)
            why = "the cluster tells nothing of it" if pod is None else failure_to_start(pod, pulls=True)
            raise SandboxError(
                f"the pod did not start in {_START_SECONDS:g} s: {why or 'it waits'}"
            ) from None
        if pod is None or (address := _address_of(pod)) is None:
            why = None if pod is None else failure_to_start(pod)
            said = await self._pod_log()
            raise SandboxError(f"the pod does not start: {why or 'it was deleted'}", said)
        return address

    async def _connect(self, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the control connection, once the init listens. Raises SandboxError."""
        watch = self._cluster.watch
        loop = asyncio.get_running_loop()
        end = loop.time() + _CONNECT_SECONDS
        while True:
            try:
                return await self._link.open(address, self._cluster.settings.port)
            except PodLinkError as exc:
                raise SandboxError(f"the pod cannot be talked to: {exc}") from exc
            except (OSError, TimeoutError) as exc:
                pod = watch.pods.get(self._pod_name)
                if ended(pod):
                    said = await self._pod_log()
                    raise SandboxError(f"the pod ended at once: {said or why_ended(pod)[1]}", said) from exc
                if loop.time() > end:
                    where = f"port {self._cluster.settings.port}"
                    raise SandboxError(
                        f"the pod runs, and this server cannot connect to its {where}: a NetworkPolicy has "
                        "to let it, or the server is not in the cluster"
                    ) from exc
            await asyncio.sleep(_TRY_EVERY)

    async def _pod_log(self) -> str:
        """Return what an init has printed that did not start."""
        try:
            text = await self._cluster.api.pod_log(self._pod_name)
        except FAILURES:
            return ""
        return " ".join(text.split())[-300:]

    # Watching

    def _heed_other(self, message: Mapping[str, Any]) -> None:
        if "output" in message:
            self._log.write(base64.b64decode(message["output"]))
        elif "dial" in message:
            self._link.dial(int(message["dial"]), int(message["port"]))
        elif message.get("exceeded") in ("memory", "processes"):
            self._exceeds = EndReason(message["exceeded"])

    async def _exceeded(self) -> EndReason | None:
        return self._exceeds

    def _enforced_by(self) -> Mapping[str, str]:
        return {
            "memory": "kubelet",
            "processes": "measurement",
            "cpu": "kubelet",
            "disk": "measurement",
            "timeout": "clock",
        }

    def _message(self, reason: EndReason) -> str:
        if reason is EndReason.LOST and self._why:
            return f"was ended by the cluster: {self._why}"
        return super()._message(reason)

    # Ending

    def _kill(self) -> None:
        self._channel.close()  # at which the init ends, and all that is inside
        if self._is_made and self._killing is None:
            self._killing = asyncio.ensure_future(self._remove())

    async def _remove(self) -> None:
        if self._making is not None:
            await asyncio.wait([self._making])
        await remove_pod(self._cluster, self._pod_name)

    async def _until_gone(self) -> None:
        if not self._is_made:
            return
        watch, name = self._cluster.watch, self._pod_name
        ending = asyncio.ensure_future(watch.until(name, ended))
        telling = list(self._telling)
        try:
            if telling:
                await asyncio.wait((ending, *telling), return_when=asyncio.FIRST_COMPLETED)
            # The init is gone, or the network between: the cluster says which, if it says something.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(watch.until(name, ended, asks=True), _SAID_SECONDS)
            pod = watch.pods.get(name)
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        reason, message = why_ended(pod)
        self._exceeds = self._exceeds or _BY_REASON.get(reason)
        if reason not in ("Completed", "Error", ""):
            self._why = f"{reason}: {message}".rstrip(": ")[:300]

    async def _release(self) -> None:
        await self._link.close()
        if self._is_made:
            if self._killing is None:
                self._killing = asyncio.ensure_future(self._remove())
            await self._killing
        if self.socket_path is not None:
            with contextlib.suppress(OSError):
                self.socket_path.unlink()


def _address_of(pod: Pod) -> str | None:
    """Return the address of a pod whose container runs."""
    status = pod.get("status", {})
    states = [each.get("state", {}) for each in status.get("containerStatuses") or ()]
    if status.get("phase") != "Running" or not any("running" in each for each in states):
        return None
    return str(status["podIP"]) if status.get("podIP") else None


async def remove_pod(cluster: Cluster, name: str) -> None:
    """Remove a pod at once, whatever of it still runs, and its Secret."""
    for remove in (cluster.api.delete_pod, cluster.api.delete_secret):
        why = ""
        for attempt in range(_REMOVAL_TRIES):
            try:
                await remove(name)
            except FAILURES as exc:
                if isinstance(exc, ClusterError) and exc.status == 404:
                    break
                why = str(exc) or type(exc).__name__
            else:
                break
            await asyncio.sleep(0.2 * 2**attempt)
        else:
            logger.warning("the pod or Secret %s cannot be removed: %s", name, why)

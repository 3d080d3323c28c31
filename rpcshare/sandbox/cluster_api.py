"""The few calls of the Kubernetes API that the driver makes, as JSON, with failures that are sentences."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
from kubernetes_asyncio.client import ApiClient, AuthorizationV1Api, CoreV1Api
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

from rpcshare.sandbox.driver import SandboxError

__all__ = ["FAILURES", "ClusterAPI", "ClusterError", "connected_client", "own_namespace", "told"]

JSON: TypeAlias = "dict[str, Any]"

_SECONDS = 60.0
_WATCH_SECONDS = 60  # one that hangs, as where a firewall has forgotten the connection, is soon replaced
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SHOWN = 400


class ClusterError(Exception):
    """A call that the cluster has refused.

    Attributes:
        status: as of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


FAILURES = (ClusterError, aiohttp.ClientError, TimeoutError, OSError)
"""What a call may raise."""


class ClusterAPI:
    """Pods and Secrets of one namespace."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        """Make calls by means of ``client``."""
        self.namespace = namespace
        # Its types are those of classes, which it makes of each answer; here JSON is enough.
        self._core: Any = CoreV1Api(client)
        self._authorization: Any = AuthorizationV1Api(client)

    async def may(self, verb: str, resource: str, part: str = "") -> bool:
        """Whether this server's account may do something."""
        attributes = {"namespace": self.namespace, "verb": verb, "resource": resource, "subresource": part}
        review = {"spec": {"resourceAttributes": attributes}}
        found = await _json(self._authorization.create_self_subject_access_review(review, **_options()))
        return bool(found.get("status", {}).get("allowed"))

    async def create(self, manifest: Mapping[str, object]) -> JSON:
        """Make a pod or a Secret."""
        create = {
            "Pod": self._core.create_namespaced_pod,
            "Secret": self._core.create_namespaced_secret,
        }[str(manifest["kind"])]
        return await _json(create(self.namespace, manifest, **_options()))

    async def delete_pod(self, name: str) -> None:
        """Delete a pod, whatever of it still runs."""
        await _json(
            self._core.delete_namespaced_pod(name, self.namespace, grace_period_seconds=0, **_options())
        )

    async def delete_secret(self, name: str) -> None:
        """Delete a Secret."""
        await _json(self._core.delete_namespaced_secret(name, self.namespace, **_options()))

    async def list_pods(self, selector: str) -> JSON:
        """Return the list of pods that have certain labels."""
        return await _json(
            self._core.list_namespaced_pod(self.namespace, label_selector=selector, **_options())
        )

    async def list_secrets(self, selector: str) -> JSON:
        """Return the list of Secrets that have certain labels."""
        return await _json(
            self._core.list_namespaced_secret(self.namespace, label_selector=selector, **_options())
        )

    async def pod_log(self, name: str) -> str:
        """Return the last lines that a pod has printed."""
        response = await self._core.read_namespaced_pod_log(name, self.namespace, tail_lines=5, **_options())
        text: str = await response.text()
        return text if response.status < 400 else ""

    async def watch_pods(self, selector: str, version: str) -> AsyncIterator[JSON]:
        """Yield what happens to pods from a version on, until the cluster ends the watch."""
        response = await self._core.list_namespaced_pod(
            self.namespace,
            label_selector=selector,
            watch=True,
            resource_version=version,
            allow_watch_bookmarks=True,
            timeout_seconds=_WATCH_SECONDS,
            _request_timeout=aiohttp.ClientTimeout(sock_connect=_SECONDS, sock_read=_WATCH_SECONDS + 15),
            _preload_content=False,
        )
        try:
            if response.status >= 400:
                raise ClusterError(response.status, str(response.reason))
            waiting = b""
            # A line is as long as a pod is, which may be more than a reader of lines takes.
            async for piece in response.content.iter_any():
                *lines, waiting = (waiting + piece).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ClusterError(int(event["object"].get("code", 500)), str(event["object"]))
                    yield event
        finally:
            response.close()


async def connected_client() -> ApiClient:
    """Return a client by the pod's own account, or else by the user's kubeconfig. Raises SandboxError."""
    in_cluster: Any = load_incluster_config
    try:
        try:
            in_cluster()
        except ConfigException:
            await load_kube_config()
    except (ConfigException, OSError, ValueError) as exc:
        raise SandboxError(f"no Kubernetes cluster is known here: {exc}") from exc
    return ApiClient()


def own_namespace() -> str:
    """Return the namespace of the server's pod; ``default``, where it is in none."""
    try:
        return _NAMESPACE_FILE.read_text().strip()
    except OSError:
        return "default"


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what a call raises into a SandboxError that begins with ``what``."""
    try:
        yield
    except FAILURES as exc:
        raise SandboxError(f"{what}: {str(exc) or type(exc).__name__}"[:_SHOWN]) from exc


def _options() -> JSON:
    return {"_preload_content": False, "_request_timeout": _SECONDS}


async def _json(asked: Awaitable[Any]) -> JSON:
    response = await asked
    text = await response.text()
    try:
        found = json.loads(text)
        message = str(found.get("message", "")) or str(response.reason)
    except (ValueError, AttributeError):
        found, message = {}, str(response.reason)
    if response.status >= 400:
        raise ClusterError(response.status, message)
    if not isinstance(found, dict) or not found:
        raise ClusterError(502, "that is no answer of a Kubernetes API")
    return found

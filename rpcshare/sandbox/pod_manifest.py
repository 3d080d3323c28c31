"""What the pod of a sandbox is made of, and the Secret that it starts from.

The Secret has the pod's token, the init's program, and small files that are mounted. The command and its
environment are in neither: they go to the init by its connection.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from rpcshare.sandbox import inside, pod_init
from rpcshare.sandbox.driver import AGENT_HOME, WORKSPACE, Mount, SandboxError, SandboxSpec

__all__ = ["LABELS", "PORT", "PodSettings", "label_value", "pod_manifest", "pod_name", "secret_manifest"]

JSON: TypeAlias = "dict[str, object]"

PORT = 7337
"""On which the init waits for the server."""

LABELS = {"app.kubernetes.io/name": "rpcshare-sandbox", "app.kubernetes.io/managed-by": "rpcshare"}
"""Which all have; the NetworkPolicy selects them by the first."""

_RUN = PurePosixPath("/run/rpcshare")
_PACKAGE = PurePosixPath("rpcshare/sandbox")
_LARGEST_FILE = 256 * 1024  # a Secret holds a megabyte
_DEADLINE_MARGIN = 900
_ILLEGAL = re.compile(r"[^a-z0-9]+")
_ILLEGAL_IN_LABEL = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class PodSettings:
    """What all pods of a driver have in common."""

    namespace: str
    image: str
    claim: str
    """The claim of a volume that the server has mounted at ``mounted_at``."""
    mounted_at: Path
    user: tuple[int, int]
    python: str
    host_users: bool | None
    """False: each pod has a range of users of its own; None: the cluster decides."""
    labels: Mapping[str, str]
    port: int = PORT


def pod_name(name: str, suffix: str) -> str:
    """Return a name for a pod: of at most 63 characters, as it becomes a host name and a label."""
    readable = _ILLEGAL.sub("-", name.lower()).strip("-")[:40].rstrip("-")
    return f"rpcs-{readable or 'sandbox'}-{suffix}"


def label_value(text: str) -> str:
    """Return what of a text may be a label's value. A text that is changed by that ends with a digest."""
    value = _ILLEGAL_IN_LABEL.sub("-", text).strip("-_.")
    if value == text and len(text) <= 63:
        return text
    return f"{value[:50].strip('-_.')}.{hashlib.sha256(text.encode()).hexdigest()[:8]}".strip(".")


def secret_manifest(
    name: str, spec: SandboxSpec, settings: PodSettings, token: str, etc: Sequence[Path]
) -> JSON:
    """Return the Secret. Raises OSError, if a file cannot be read."""
    files = {
        "token": token.encode(),
        "inside.py": Path(inside.__file__).read_bytes(),
        "pod_init.py": Path(pod_init.__file__).read_bytes(),
        **{f"etc-{file.name}": file.read_bytes() for file in etc},
        **{key: mount.source.read_bytes() for key, mount in _small_files(spec, settings)},
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": settings.namespace, "labels": _labels(spec, settings)},
        "immutable": True,
        "data": {key: base64.b64encode(data).decode() for key, data in files.items()},
    }


def pod_manifest(name: str, spec: SandboxSpec, settings: PodSettings, etc: Sequence[Path]) -> JSON:
    """Return the pod.

    Raises:
        SandboxError: a directory is not on the volume.
    """
    limits = spec.limits
    init = [_RUN / _PACKAGE / "pod_init.py", settings.port, _RUN / "token"]
    half = str(limits.memory // 2)
    deadline = {} if limits.timeout is None else {"activeDeadlineSeconds": _deadline(limits.timeout)}
    host_users = {} if settings.host_users is None else {"hostUsers": settings.host_users}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": _labels(spec, settings),
            # What an agent does cannot be done again on another node.
            "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostname": "sandbox",
            "terminationGracePeriodSeconds": 5,
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["127.0.0.1"]},  # names are resolved by the proxy
            **deadline,
            **host_users,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": settings.user[0],
                "runAsGroup": settings.user[1],
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "sandbox",
                    "image": settings.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": [settings.python, "-I", "-S", "-B", *map(str, init)],
                    "workingDir": "/",
                    "ports": [{"name": "init", "containerPort": settings.port}],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "privileged": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "resources": _resources(spec),
                    "volumeMounts": _volume_mounts(spec, settings, etc),
                }
            ],
            "volumes": [
                {"name": "files", "secret": {"secretName": name, "defaultMode": 0o444, "items": _items()}},
                {"name": "secret", "secret": {"secretName": name, "defaultMode": 0o444}},
                {"name": "claim", "persistentVolumeClaim": {"claimName": settings.claim}},
                # Of memory, so that what is written there counts as that, and is gone with the pod.
                {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": half}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": half}},
            ],
        },
    }


def _deadline(timeout: float) -> int:
    """Return when the cluster ends a pod that the server has not: the time it takes to start counts there."""
    return math.ceil(timeout) + _DEADLINE_MARGIN


def _labels(spec: SandboxSpec, settings: PodSettings) -> dict[str, str]:
    return {**LABELS, **settings.labels, "rpcshare.sandbox/name": label_value(spec.name)}


def _items() -> list[JSON]:
    modules: list[JSON] = [
        {"key": name, "path": str(_PACKAGE / name)} for name in ("inside.py", "pod_init.py")
    ]
    return [{"key": "token", "path": "token"}, *modules]


def _resources(spec: SandboxSpec) -> JSON:
    limits = spec.limits
    cpu = f"{max(1, round(limits.cpus * 1000))}m"
    memory = str(limits.memory)
    # All memory is asked for: a node that is short of it would evict the pod. Nothing is written to the node.
    return {
        "limits": {"cpu": cpu, "memory": memory, "ephemeral-storage": "64Mi"},
        "requests": {
            "cpu": f"{max(1, round(min(limits.cpus, 0.25) * 1000))}m",
            "memory": memory,
            "ephemeral-storage": "16Mi",
        },
    }


def _volume_mounts(spec: SandboxSpec, settings: PodSettings, etc: Sequence[Path]) -> list[JSON]:
    small = _small_files(spec, settings)
    large = [mount for mount in spec.mounts if mount not in [each for _, each in small]]
    return [
        {"name": "files", "mountPath": str(_RUN), "readOnly": True},
        *(_of_secret(f"etc-{file.name}", PurePosixPath("/etc", file.name)) for file in etc),
        *(_of_secret(key, mount.target) for key, mount in small),
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 -- inside
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 -- inside
        _of_claim(Mount(spec.workspace, WORKSPACE, readonly=False), settings),
        _of_claim(Mount(spec.home, AGENT_HOME, readonly=False), settings),
        *(_of_claim(mount, settings) for mount in large),
    ]


def _of_secret(key: str, target: PurePosixPath) -> JSON:
    return {"name": "secret", "mountPath": str(target), "subPath": key, "readOnly": True}


def _of_claim(mount: Mount, settings: PodSettings) -> JSON:
    try:
        # Of the server's own making: workspaces are kept by their ids.
        path = mount.source.resolve().relative_to(settings.mounted_at.resolve())
    except ValueError:
        raise SandboxError(
            f"what is mounted at {mount.target} is not on the volume that pods share with this server"
        ) from None
    if not path.parts:
        raise SandboxError(f"all of the volume cannot be mounted at {mount.target}")
    return {
        "name": "claim",
        "mountPath": str(mount.target),
        "subPath": str(path),
        "readOnly": mount.readonly,
    }


def _small_files(spec: SandboxSpec, settings: PodSettings) -> list[tuple[str, Mount]]:
    """Return the files of the server that are mounted, and not on the volume: they go by the Secret."""
    found = []
    for number, mount in enumerate(spec.mounts):
        is_shared = mount.source.resolve().is_relative_to(settings.mounted_at.resolve())
        if not is_shared and mount.readonly and mount.source.is_file():
            if mount.source.stat().st_size > _LARGEST_FILE:
                raise SandboxError(f"the file for {mount.target} is too large: put it into the image")
            found.append((f"file-{number}", mount))
    return found

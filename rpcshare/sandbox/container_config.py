"""What a container of a sandbox is made of, as Docker's API takes it.

No network, no capability and no way to get one, the engine's own seccomp filter, a read-only root, and
nothing of the machine but what the sandbox is given. What the command is, and its environment, is no part of
it: that goes to the init by its socket, so that nobody reads it who may list containers.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from aiodocker.types import JSONObject, JSONValue

from rpcshare.sandbox.container_engine import EngineAbilities, Image
from rpcshare.sandbox.driver import AGENT_HOME, WORKSPACE, Mount, SandboxSpec
from rpcshare.sandbox.init_channel import forwarded_ports

__all__ = [
    "CONTROL",
    "INIT",
    "INSTANCE_LABEL",
    "RUN",
    "SERVER_LABEL",
    "JSONObject",
    "container_config",
    "resource_limits",
]

RUN = PurePosixPath("/run/rpcshare")
INIT = PurePosixPath("/run/rpcshare/init.py")
CONTROL = PurePosixPath("/run/rpcshare/control.sock")

SERVER_LABEL = "rpcshare.sandbox.server"
INSTANCE_LABEL = "rpcshare.sandbox.instance"

# What Docker hides by itself, as a list replaces its own; Podman adds to its own.
_MASKED_BY_DOCKER = (
    *("/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi"),
)
# What tells of the machine, and not of the sandbox.
_MASKED = ("/proc/kallsyms", "/proc/key-users", "/proc/kmsg", "/proc/slabinfo", "/proc/vmallocinfo", "/sys")

_FILES = 16_384


def container_config(
    spec: SandboxSpec,
    *,
    abilities: EngineAbilities,
    image: Image,
    user: tuple[int, int],
    init: Path,
    control: Path,
    etc: Iterable[Path],
    mounts: Sequence[Mount],
    labels: Mapping[str, str],
    python: str,
) -> dict[str, JSONValue]:
    """Return the body of ``POST /containers/create``.

    Args:
        spec: what is wanted.
        abilities: of the engine.
        image: what the root is.
        user: user and group inside.
        init: the file of the init.
        control: the socket on which the server waits for it.
        etc: files of ``/etc``, by their names.
        mounts: what each sandbox of this driver sees, beside what its spec has.
        labels: by which what a killed server has left is found.
        python: what the init is run by, inside.
    """
    binds = [
        *(Mount(file, PurePosixPath("/etc", file.name)) for file in etc if file.name != "hostname"),
        *mounts,
        Mount(init, INIT),
        Mount(control, CONTROL),
        *(Mount(path, RUN / f"{port}.sock") for port, path in forwarded_ports(spec)),
        Mount(spec.workspace, WORKSPACE, readonly=False),
        Mount(spec.home, AGENT_HOME, readonly=False),
        *spec.mounts,
    ]
    return {
        "Image": image.id,
        "Entrypoint": [python],
        "Cmd": ["-I", "-S", "-B", str(INIT), str(CONTROL)],
        "User": f"{user[0]}:{user[1]}",
        "WorkingDir": "/",
        "Hostname": "sandbox",
        "Labels": dict(labels),
        "NetworkDisabled": True,
        # Podman wants systemd for what is no check at all.
        **({"Healthcheck": {"Test": ["NONE"]}} if image.has_healthcheck else {}),
        "HostConfig": {
            "NetworkMode": "none",
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "RestartPolicy": {"Name": "no"},
            # The command prints elsewhere; this is for an init that cannot start.
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "64k"}},
            "Mounts": [_bind(each) for each in binds],
            "Tmpfs": _tmpfs(spec, image, binds),
            "ShmSize": max(1, spec.limits.memory // 4),
            **_limits(spec, abilities),
            **_security(abilities),
        },
    }


def _bind(mount: Mount) -> dict[str, JSONValue]:
    return {
        "Type": "bind",
        "Source": str(mount.source),
        "Target": str(mount.target),
        "ReadOnly": mount.readonly,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _tmpfs(spec: SandboxSpec, image: Image, binds: Iterable[Mount]) -> dict[str, str]:
    """Return what is writable and counts as memory, with the image's volumes among it."""
    options = f"rw,exec,nosuid,nodev,size={spec.limits.memory // 2},mode=1777"
    bound = {str(each.target) for each in binds}
    volumes = [each for each in image.volumes if each.rstrip("/") not in bound]
    return dict.fromkeys(["/tmp", "/var/tmp", *volumes], options)  # noqa: S108 -- inside


def _limits(spec: SandboxSpec, abilities: EngineAbilities) -> dict[str, JSONValue]:
    limits, controlled = spec.limits, abilities.controlled
    found: dict[str, JSONValue] = {"Ulimits": resource_limits()}
    if "memory" in controlled:
        found |= {"Memory": limits.memory, "MemorySwap": limits.memory}  # which is: no swap
    if "cpu" in controlled:
        found["NanoCpus"] = round(limits.cpus * 10**9)
    if "pids" in controlled:
        found["PidsLimit"] = limits.processes
    return found


def resource_limits() -> list[JSONValue]:
    """Return those that an engine would raise above what it may itself, where it is in a container, too."""
    wanted = {"core": 0, "nofile": _FILES}
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most_files != resource.RLIM_INFINITY:
        wanted["nofile"] = min(_FILES, most_files)
    most_processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if most_processes != resource.RLIM_INFINITY:
        # Of all of this user's; the control group counts those of one. Podman has no more than there are ids.
        wanted["nproc"] = min(most_processes, int(Path("/proc/sys/kernel/pid_max").read_text()))
    return [{"Name": name, "Soft": value, "Hard": value} for name, value in wanted.items()]


def _security(abilities: EngineAbilities) -> dict[str, JSONValue]:
    options = ["no-new-privileges"]
    if abilities.has_selinux:
        # The sockets of the server have no label that a container may connect to.
        options.append("label=disable")
    found: dict[str, JSONValue] = {"SecurityOpt": options}
    if abilities.is_podman:
        options.append("mask=" + ":".join(_MASKED))
    else:
        found["MaskedPaths"] = [*_MASKED_BY_DOCKER, *_MASKED]
    if abilities.is_podman and abilities.is_rootless:
        found["UsernsMode"] = "keep-id"
    elif abilities.has_user_remap:
        found["UsernsMode"] = "host"
    return found

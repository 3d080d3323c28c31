"""The driver of sandboxes that ``--agents`` names. Imported on servers that run agents alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpcshare.config import ConfigError, Settings

if TYPE_CHECKING:
    from rpcshare.sandbox.driver import SandboxDriver

__all__ = ["sandbox_driver"]


def sandbox_driver(settings: Settings) -> SandboxDriver:
    """Return the driver, which has not been checked. Takes the time of its imports.

    Raises:
        ConfigError: a package that it needs is not installed.
    """
    if settings.agents == "docker":
        try:
            from rpcshare.sandbox.docker import DockerDriver  # noqa: PLC0415 -- an extra
        except ImportError as exc:
            raise ConfigError("--agents docker needs aiodocker: pip install 'rpcshare[docker]'") from exc
        return DockerDriver(
            settings.agents_image,
            settings.data_dir / "sandboxes",
            engine=settings.agents_engine,
            user=settings.agents_user,
        )
    if settings.agents == "kubernetes":
        if settings.agents_claim is None or settings.workspaces_dir is None:
            raise ConfigError(
                "--agents kubernetes needs --workspaces-dir, where a volume is mounted that pods mount, too, "
                "and --agents-claim, its claim"
            )
        try:
            from rpcshare.sandbox.kubernetes import KubernetesDriver  # noqa: PLC0415 -- an extra
        except ImportError as exc:
            needs = "--agents kubernetes needs kubernetes_asyncio: pip install 'rpcshare[kubernetes]'"
            raise ConfigError(needs) from exc
        return KubernetesDriver(
            settings.agents_image,
            settings.data_dir / "sandboxes",
            claim=settings.agents_claim,
            mounted_at=settings.workspaces_path,
            namespace=settings.agents_namespace,
            user=settings.agents_user,
        )
    from rpcshare.sandbox.bubblewrap import BubblewrapDriver  # noqa: PLC0415 -- which the others do not need

    return BubblewrapDriver(
        user=settings.agents_user,
        unsafe=settings.agents_unsafe,
        hidden=[settings.data_dir, settings.workspaces_path],
    )

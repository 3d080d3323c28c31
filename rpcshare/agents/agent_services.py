"""What all callers' agents have in common on one server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from rpcshare.agents.agent import Agent, JSONObject
from rpcshare.agents.agents import Agents
from rpcshare.sandbox.egress_proxy import EgressPolicy
from rpcshare.shares.service import ShareService

__all__ = ["AgentServices", "Node"]


class Node(Protocol):
    """What runs agents: this node those whose workspaces it has leased, and others by asking their nodes."""

    def wake(self, workspace: str) -> None:
        """Look at a workspace soon: something of its agents has changed."""

    async def call(self, agent: Agent, name: str, arguments: JSONObject) -> object:
        """Return what opencode answers: ``fork``, ``revert``, ``unrevert``, ``diff`` or ``todo``.

        Raises:
            ShareError: INVALID_ARGUMENT: the agent is busy, or opencode refuses it. CONTAINER_START_FAILED.
        """


class AgentServices:
    """The agents, what runs them, and where what they say is kept."""

    def __init__(
        self,
        opened: Callable[[], Awaitable[Agents]],
        node: Node,
        shares: ShareService,
        choose_model: Callable[[str | None], str],
        *,
        public_url: str,
        check_start: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Take them.

        Args:
            opened: returns the agents, whose database is opened when somebody first needs it.
            node: runs them.
            shares: has their transcripts.
            choose_model: returns the full name of a model that was asked for, or of the default. Raises
            ShareError.
            public_url: the base of links.
            check_start: returns if agents can be started now. Raises ShareError.
        """
        self.opened = opened
        self.node = node
        self.shares = shares
        self.choose_model = choose_model
        self.public_url = public_url.rstrip("/")
        self.check_start = check_start
        self.model_names: Callable[[], Sequence[str]] = tuple
        """Returns the models that there are, the default first; none: it is not known."""
        self.webhook_policy: EgressPolicy | None = None
        """Where webhooks may be; None: there are none."""
        self.wake_webhooks: Callable[[], None] = lambda: None
        """Delivers at once what is due."""
        self.collectors: Sequence[Any] = ()
        """Of metrics: what a registry of prometheus_client takes."""

"""Where one caller is told of its agents."""

from __future__ import annotations

from rpcshare.agents.agent_services import AgentServices
from rpcshare.agents.webhooks import Webhook, Webhooks, check_url
from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.sandbox.egress_proxy import EgressPolicy
from rpcshare.workspaces.caller_rights import CallerRights

__all__ = ["CallerWebhooks"]


class CallerWebhooks:
    """The webhook of one caller, who has one at most. Methods raise ShareError, as those of its agents do."""

    def __init__(
        self, services: AgentServices, caller: Caller, rights: CallerRights, audit: AuditLog
    ) -> None:
        """Made by :attr:`rpcshare.agents.caller_agents.CallerAgents.webhooks`."""
        self._services = services
        self._caller = caller
        self._rights = rights
        self._audit = audit

    @property
    def are_offered(self) -> bool:
        """Whether this server delivers to any."""
        return self._services.webhook_policy is not None

    async def current(self) -> Webhook | None:
        """Return where the caller is told; None: nowhere."""
        with self._rights.checked(Action.AGENT_READ):
            owner = self._rights.owner()
            return await (await self._opened()).of(owner)

    async def set(self, url: str) -> Webhook:
        """Tell the caller at ``url`` from now on when an agent of its own waits, is done or fails.

        Raises:
            ShareError: INVALID_ARGUMENT: nothing may be delivered there.
        """
        with self._rights.checked(Action.AGENT_WEBHOOK):
            owner, policy = self._rights.owner(), self._policy()
            made = await (await self._opened()).set(owner, check_url(url, policy))
        self._audit.done(Action.AGENT_WEBHOOK, self._caller, what="set")
        return made

    async def remove(self) -> None:
        """Tell the caller no more; what waits to be told is forgotten."""
        with self._rights.checked(Action.AGENT_WEBHOOK):
            owner, _ = self._rights.owner(), self._policy()
            await (await self._opened()).remove(owner)
        self._audit.done(Action.AGENT_WEBHOOK, self._caller, what="remove")

    async def test(self) -> None:
        """Deliver a notice of the type ``test``."""
        with self._rights.checked(Action.AGENT_WEBHOOK):
            owner, webhooks = self._rights.owner(), await self._opened()
            if await webhooks.of(owner) is None:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "url: there is none yet")
            await webhooks.test(owner)
        self._services.wake_webhooks()
        self._audit.done(Action.AGENT_WEBHOOK, self._caller, what="test")

    async def _opened(self) -> Webhooks:
        return Webhooks((await self._services.opened()).database)

    def _policy(self) -> EgressPolicy:
        policy = self._services.webhook_policy
        if policy is None:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "url: this server has no webhooks")
        return policy

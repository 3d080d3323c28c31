"""From the settings to the ways in which users sign in. Without one, nothing of it is imported."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from rpcshare.auth.api_key_verifier import ApiKeyVerifier
from rpcshare.auth.audit import AuditLog
from rpcshare.auth.cookies import SessionSeal
from rpcshare.auth.request_rates import RequestRates
from rpcshare.auth.sign_in_providers import Preset
from rpcshare.config import Settings
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.records_opening import Records
from rpcshare.structured_log import structlog

if TYPE_CHECKING:
    from rpcshare.server.web.user_sign_in import SignedIn

__all__ = ["user_sign_in"]

logger = structlog.get_logger("rpcshare.server")


@contextlib.asynccontextmanager
async def user_sign_in(
    settings: Settings,
    seal: SessionSeal,
    base_url: str,
    records: Records,
    api_keys: ApiKeyVerifier,
    rates: RequestRates,
    audit: AuditLog,
) -> AsyncIterator[SignedIn | None]:
    """Give the users of a server and how they sign in; None, where the settings have no provider.

    Keys of users are good then, which ``api_keys`` knows, and ``rates`` know what admins have chosen.

    Raises:
        ShareError: the database of records cannot be opened.
    """
    if not settings.oidc:
        yield None
        return
    from rpcshare.auth.organization_audit import OrganizationAudit  # noqa: PLC0415
    from rpcshare.auth.people import People  # noqa: PLC0415 -- it takes half a second to import
    from rpcshare.auth.request_totals import RequestTotals  # noqa: PLC0415
    from rpcshare.auth.sign_in import SignIns  # noqa: PLC0415
    from rpcshare.auth.user_callers import UserCallers  # noqa: PLC0415
    from rpcshare.server.web.user_sign_in import SignedIn  # noqa: PLC0415

    for provider in settings.oidc:
        if provider.issuer.startswith("http:"):
            logger.warning(
                "whoever can change what an issuer answers over plain HTTP can sign in as anybody",
                provider=provider.name,
            )
        if provider.preset is not Preset.OIDC and not (provider.allowed_domains or provider.allowed_groups):
            logger.warning(
                "whoever has an account at this provider can sign in: name allowed_domains or allowed_groups",
                provider=provider.name,
            )
    async with contextlib.AsyncExitStack() as stack:
        database = await records.opened()
        people = People(database)
        organization_audit = await stack.enter_async_context(OrganizationAudit(database).writing())
        audit.on_event = organization_audit.record
        try:
            rates.allowances.know(await people.chosen_allowances())
        except DatabaseError as exc:
            raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
        sign_ins = await stack.enter_async_context(SignIns(settings.oidc, people, seal, base_url).opened())
        callers = await stack.enter_async_context(UserCallers(people, rates.allowances).refreshing())
        api_keys.users = callers
        if not database.is_sqlite:  # which several servers may have
            await stack.enter_async_context(RequestTotals(database, rates.counted).sharing())
        yield SignedIn(people, sign_ins, callers, rates.allowances, organization_audit)

"""What a form sends, and whether it is one of ours."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request

from rpcshare.auth.origin import OriginPolicy
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.request import read_body, request_head

__all__ = ["check_own_form", "read_fields", "read_form"]

_MAX_FORM = 32_768  # bytes
_MAX_FIELDS = 10


def check_own_form(request: Request, origins: OriginPolicy) -> None:
    """Return if a page of our own has sent the form.

    Raises:
        ShareError: FORBIDDEN. Another site's page may send a form here too, with our cookies.
    """
    if not origins.is_own(request_head(request)):
        raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: the form was not sent from a page of this server")


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        ShareError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE.
    """
    return dict(await read_fields(request))


async def read_fields(
    request: Request, *, most_bytes: int = _MAX_FORM, most_fields: int = _MAX_FIELDS
) -> list[tuple[str, str]]:
    """Return the fields of a form in their order: one name may come several times.

    Raises:
        ShareError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "the body is not a form")
    body = await read_body(request, most_bytes)
    try:
        text = body.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, max_num_fields=most_fields)
    except ValueError:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "the form cannot be read") from None

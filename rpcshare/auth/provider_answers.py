"""What identity providers answer over HTTP: JSON objects, and the sentences for those that are none."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from rpcshare import jsontext
from rpcshare.auth.bounded_http import ask
from rpcshare.auth.provider_errors import SignInError
from rpcshare.auth.sign_in_providers import Provider

__all__ = ["json_answer", "unreachable"]


async def json_answer(
    provider: Provider,
    url: str,
    *,
    headers: dict[str, str] | None = None,
    form: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return the JSON object that a provider answers.

    Raises:
        SignInError: there is none in time, or the provider refuses.
    """
    try:
        answer = await ask(url, method="GET" if form is None else "POST", headers=headers, form=form)
        content = jsontext.decode(answer.body)
    except jsontext.JSONDecodeError:
        raise unreachable(provider, f"the answer of {_shown(url)} is no JSON") from None
    except (ConnectionError, TimeoutError) as exc:
        what = str(exc) or "it takes too long"
        raise unreachable(provider, f"{_shown(url)}: {what}") from None
    except ValueError as exc:
        raise unreachable(provider, f"{_shown(url)}: {exc}") from None
    if not isinstance(content, dict):
        raise unreachable(provider, f"the answer of {_shown(url)} is no JSON object")
    if "error" in content and form is not None:
        raise _refused(provider, content)
    if answer.status != HTTPStatus.OK:
        raise unreachable(provider, f"{_shown(url)} answers {answer.status}")
    return content


def _refused(provider: Provider, content: dict[str, Any]) -> SignInError:
    code = content.get("error")
    shown = code if isinstance(code, str) and code.isascii() and code.isprintable() else "an error"
    if code in ("invalid_grant", "bad_verification_code"):
        return SignInError(
            f"{provider.label} does not take the code: it is used, or too old. Please sign in again.",
            f"the token endpoint says {shown}",
        )
    return SignInError(
        f"{provider.label} refuses this server. Whoever runs it finds the reason in its log.",
        f"the token endpoint says {shown[:60]}: client_id, client_secret and redirect URI must be those that "
        "the provider knows",
        status=502,
    )


def unreachable(provider: Provider, detail: str) -> SignInError:
    """Return the error for a provider that does not answer as one; the log is told the ``detail``."""
    return SignInError(
        f"{provider.label} cannot be reached at the moment. Please try again in a few seconds.",
        detail,
        status=502,
    )


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"[:200]

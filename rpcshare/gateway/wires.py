"""The two wires, and what of a request from a sandbox is let through.

Whoever controls the sandbox controls the request. So nothing of it goes on as it came: the body is parsed,
and what was parsed is encoded anew, so that a name which is there twice means to the provider what it means
here. Names that a provider could take for another, because it does not tell cases apart (Go's
``encoding/json``), are refused. Fields are refused that choose another model, another host or another
price, and tools that run at the provider and are charged beside the tokens. A provider that fetches a URL
would carry data past the egress proxy, so images and files come within the request.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rpcshare import jsontext
from rpcshare.gateway.metering import BYTES_A_TOKEN
from rpcshare.gateway.models import ModelTable, WireKind

__all__ = ["GatewayError", "ModelRequest", "Wire", "wire_of"]

_TOKENS_OF_A_PICTURE = 1600
_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BETAS = re.compile(r"[A-Za-z0-9,._ -]{1,512}")
_USUAL_VERSION = "2023-06-01"

# Of either wire, and of gateways that a table may lead to: another model than the one that was asked for,
# another host, a key, another price for the same tokens, or something that is charged beside them.
_REFUSED = frozenset(
    {"models", "fallbacks", "context_window_fallbacks", "route", "preset", "plugins", "mcp_servers"}
    | {"web_search_options", "api_base", "base_url", "api_key", "api_version", "extra_headers"}
    | {"service_tier", "speed", "inference_geo", "background", "container", "provider", "headers"}
    | {"custom_llm_provider", "content_policy_fallbacks", "model_list", "user_config", "mock_response"}
)
_REFUSED_BEGINNINGS = ("litellm_", "aws_", "azure_", "vertex_")
_READ_HERE = frozenset({"model", "stream", "stream_options", "messages", "system", "tools", "n", "best_of"})
_CLIENT_TOOLS = re.compile(r"(custom|(bash|text_editor|computer|memory)_[0-9]{8})")
_SPOKEN = frozenset(
    {"text", "tool_use", "thinking", "redacted_thinking", "reasoning", "refusal", "search_result"}
)
# Who reads URLs as browsers do drops blanks, wherever they are, and wants no slashes.
_BLANKS = "".join(map(chr, range(33)))
_WITHOUT_BLANKS = str.maketrans("", "", _BLANKS)
_URL = re.compile(r"(https?|ftp|s3|gs|file):|[a-z][a-z0-9+.-]{1,15}://", re.IGNORECASE)

_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class GatewayError(Exception):
    """A request that the gateway refuses, or cannot carry out.

    Attributes:
        status: of the answer.
        message: a sentence, which is shown within the sandbox.
        reason: one of few words, for metrics.
        retry_after: seconds, or None.
    """

    def __init__(
        self, status: int, message: str, reason: str = "malformed", *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.retry_after = retry_after


@dataclass(frozen=True)
class ModelRequest:
    """What is asked of a model."""

    model: str
    """As the provider calls it."""
    is_stream: bool
    body: bytes
    """Encoded anew."""
    tokens: int
    """Roughly, how many it has."""


class Wire:
    """One wire."""

    def __init__(self, kind: WireKind, path: str) -> None:
        """Speak ``kind``, which asks a model by POST to ``path``."""
        self.kind = kind
        self.path = path

    def read(self, body: bytes, *, asks_for_usage: bool = True) -> ModelRequest:
        """Return what a body asks for. To decode it takes time by the number of values: count them before.

        Args:
            body: JSON.
            asks_for_usage: whether a stream is to say what it has counted, in OpenAI's way.

        Raises:
            GatewayError: it is none that is let through; the message says why.
        """
        asked = _object(body)
        model, is_stream = asked.get("model"), asked.get("stream")
        if not isinstance(model, str):
            raise GatewayError(400, "model: must be the name of a model")
        if not (is_stream is None or isinstance(is_stream, bool)):
            raise GatewayError(400, "stream: must be true or false")
        for name in ("n", "best_of"):
            if asked.get(name) not in (None, 1):
                # What one request may cost is what may be spent beyond a budget.
                raise GatewayError(403, f"{name}: one answer at a time", "field")
        self._check_tools(asked.get("tools"))
        pictures, weight = 0, 0
        for part in _parts([asked.get("messages"), asked.get("system")]):
            for text in _texts(part):
                if _URL.match(text.lstrip(_BLANKS)[:100].translate(_WITHOUT_BLANKS)):
                    message = (
                        "a file by its URL is not taken: send what is in it, as a data: URL or in base64"
                    )
                    raise GatewayError(403, message, "url")
                weight += len(text)
            pictures += 1
        if is_stream and self.kind is WireKind.OPENAI:
            options = asked.pop("stream_options", None)
            if asks_for_usage:
                asked["stream_options"] = _counting(options)
        encoded = jsontext.encode(asked)
        tokens = math.ceil(max(len(encoded) - weight, 0) / BYTES_A_TOKEN) + pictures * _TOKENS_OF_A_PICTURE
        return ModelRequest(model, bool(is_stream), encoded, tokens)

    def headers(
        self, table: ModelTable, key: str, given: Mapping[str, str], *, is_stream: bool
    ) -> dict[str, str]:
        """Return the headers for the provider. Of those of the request, a few are taken over."""
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if is_stream else "application/json",
            # Compressed, a piece would wait for the next; and few bytes could become very many.
            "accept-encoding": "identity",
            "user-agent": "rpcshare",
        }
        usual = "authorization"
        if self.kind is WireKind.ANTHROPIC:
            usual = "x-api-key"
            version, betas = given.get("anthropic-version", ""), given.get("anthropic-beta", "")
            headers["anthropic-version"] = version if _VERSION.fullmatch(version) else _USUAL_VERSION
            if _BETAS.fullmatch(betas):
                headers["anthropic-beta"] = betas
        name = (table.key_header or usual).lower()
        headers[name] = f"Bearer {key}" if name == "authorization" else key
        return headers

    def error(self, status: int, message: str) -> bytes:
        """Return an error as the provider would say it."""
        kind = _ERRORS.get(status, "api_error")
        if self.kind is WireKind.ANTHROPIC:
            return jsontext.encode({"type": "error", "error": {"type": kind, "message": message}})
        error = {"message": message, "type": kind, "param": None, "code": None}
        return jsontext.encode({"error": error})

    def event_of_error(self, status: int, message: str) -> bytes:
        """Return an error as an event, for a stream that has begun."""
        name = b"event: error\n" if self.kind is WireKind.ANTHROPIC else b""
        return name + b"data: " + self.error(status, message) + b"\n\n"

    def listed(self, table: ModelTable) -> bytes:
        """Return the models of a table, as the provider lists them."""
        if self.kind is WireKind.ANTHROPIC:
            created = "1970-01-01T00:00:00Z"
            models = [
                {"type": "model", "id": each, "display_name": each, "created_at": created}
                for each in table.models
            ]
            ends = {"first_id": table.models[0], "last_id": table.models[-1]}
            return jsontext.encode({"data": models, "has_more": False, **ends})
        listed = [
            {"id": each, "object": "model", "created": 0, "owned_by": table.name} for each in table.models
        ]
        return jsontext.encode({"object": "list", "data": listed})

    def _check_tools(self, tools: object) -> None:
        if tools is None:
            return
        if not isinstance(tools, list) or not all(isinstance(each, dict) for each in tools):
            raise GatewayError(400, "tools: must be a list of tools")
        for tool in tools:
            kind = tool.get("type", "custom" if self.kind is WireKind.ANTHROPIC else None)
            is_openai = self.kind is WireKind.OPENAI
            is_own = kind in ("function", "custom") if is_openai else _is_client_tool(kind)
            if not is_own:
                message = "tools: one runs at the provider, beside the sandbox, and that is not allowed"
                raise GatewayError(403, message, "tool")


_WIRES = {
    WireKind.OPENAI: Wire(WireKind.OPENAI, "/chat/completions"),
    WireKind.ANTHROPIC: Wire(WireKind.ANTHROPIC, "/messages"),
}


def wire_of(kind: WireKind) -> Wire:
    """Return the wire of a kind."""
    return _WIRES[kind]


def _object(body: bytes) -> dict[str, object]:
    try:
        asked = jsontext.decode(body)
    except jsontext.JSONDecodeError:
        raise GatewayError(400, "the body is not JSON") from None
    if not isinstance(asked, dict):
        raise GatewayError(400, "the body must be an object")
    names = [str(name).casefold() for name in asked]
    if len(set(names)) < len(names):
        raise GatewayError(400, "the body has two fields whose names differ in their case alone")
    for name in asked:
        folded = str(name).casefold()
        if folded in _REFUSED or folded.startswith(_REFUSED_BEGINNINGS):
            raise GatewayError(403, f"{folded}: this field is not let through", "field")
        if folded in _READ_HERE and name != folded:
            raise GatewayError(400, f"{folded}: must be in lower case")
    return asked


def _is_client_tool(kind: object) -> bool:
    return kind is None or (isinstance(kind, str) and _CLIENT_TOOLS.fullmatch(kind) is not None)


def _counting(options: object) -> dict[str, object]:
    """Return options of a stream with which the provider says what it has counted."""
    given = options if isinstance(options, dict) else {}
    kept = {"include_obfuscation": given["include_obfuscation"]} if "include_obfuscation" in given else {}
    return {**kept, "include_usage": True}


def _parts(values: list[object]) -> Iterator[dict[str, object]]:
    """Yield the parts of messages that are no text: pictures, documents, and what nobody here knows."""
    waiting: list[object] = values
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict) and value.get("type") in (None, "tool_result", "message"):
            waiting.append(value.get("content"))
        elif isinstance(value, dict) and value.get("type") not in _SPOKEN:
            yield value


def _texts(part: dict[str, object]) -> Iterator[str]:
    """Yield the strings in a part, at whatever depth; of a document that is given as text, not that."""
    waiting: list[object] = [part]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            is_text = value.get("type") == "text"
            waiting.extend(each for name, each in value.items() if not (is_text and name in ("data", "text")))

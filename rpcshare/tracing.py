"""OpenTelemetry spans. Only the API is used here: the SDK, and where spans go, are the operator's.

There is a tracer only where the package ``opentelemetry-api`` is installed and an SDK has been set up, as
``opentelemetry-instrument rpcshare serve`` does. Everything else asks for it once, when it is made, so that
nothing is measured, wrapped or looked up where there is none.

No span has an id of a share, a path, a query, a key, a statement's values or an error's message.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rpcshare.errors import ShareError
from rpcshare.version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind, Tracer

__all__ = ["Attributes", "Tracing", "find_tracing"]

Attributes = Mapping[str, str | int]


class Tracing:
    """Makes spans. Those that are begun within another one belong to it."""

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry import context, propagate, trace  # noqa: PLC0415 -- an optional package

        self._tracer = tracer
        self._context = context
        self._propagate = propagate
        self._trace = trace

    def parent_of(self, headers: Mapping[str, str]) -> Context:
        """Return the context that ``traceparent`` among ``headers`` names, or that of no parent."""
        return self._propagate.extract(headers)

    def here(self) -> Context:
        """Return the current context: what begins in it elsewhere belongs to the current span."""
        return self._context.get_current()

    def begin(self, name: str, attributes: Attributes, parent: Context) -> Span:
        """Begin a span that is made current, and ended, with :meth:`within`."""
        return self._tracer.start_span(name, context=parent, attributes=dict(attributes))

    def begin_client(self, name: str, attributes: Attributes) -> Span:
        """Begin a span of what another system is asked for, which belongs to the current span.

        It is never current itself; whoever begins it ends it.
        """
        kind = self._trace.SpanKind.CLIENT
        return self._tracer.start_span(name, kind=kind, attributes=dict(attributes))

    @contextmanager
    def within(self, span: Span, *, ends: bool) -> Iterator[None]:
        """Have a span be the current one in this context; end it with the context, or with an exception."""
        try:
            with self._trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield
        except BaseException as exc:
            self.failed(span, _reason(exc))
            span.end()
            raise
        if ends:
            span.end()

    @contextmanager
    def server_span(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> Iterator[Span]:
        """Trace in this context a request that has ``headers``."""
        kind = self._trace.SpanKind.SERVER
        with self._span(name, kind, attributes, self.parent_of(headers)) as span:
            yield span

    @contextmanager
    def client_span(self, name: str, attributes: Attributes) -> Iterator[Span]:
        """Trace in this context what another system is asked for: a store, a database."""
        with self._span(name, self._trace.SpanKind.CLIENT, attributes, None) as span:
            yield span

    def failed(self, span: Span, reason: str) -> None:
        """Mark a span as that of a failure; ``reason`` is a code or a class."""
        span.set_attribute("error.type", reason)
        span.set_status(self._trace.StatusCode.ERROR)

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, attributes: Attributes, parent: Context | None
    ) -> Iterator[Span]:
        # An exception's message may quote what a user wrote, so that only its class is recorded.
        with self._tracer.start_as_current_span(
            name,
            context=parent,
            kind=kind,
            attributes=dict(attributes),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception as exc:
                self.failed(span, _reason(exc))
                raise


def _reason(error: BaseException) -> str:
    return str(error.code) if isinstance(error, ShareError) else type(error).__name__


def find_tracing() -> Tracing | None:
    """Return what makes spans; None where there is no OpenTelemetry, or nobody has set up an SDK."""
    try:
        trace = importlib.import_module("opentelemetry.trace")
    except ImportError:
        return None
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return Tracing(trace.get_tracer("rpcshare", __version__))

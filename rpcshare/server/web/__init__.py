"""The HTML pages, over HTTP: routes, forms, cookies and live updates."""

from rpcshare.server.web.site import PageSite

__all__ = ["PageSite"]

"""Shares: what a session is shared as, from the batch that a caller sends to the events it makes."""

from rpcshare.shares.context import LogSettings
from rpcshare.shares.events import Deleted, Event, Snapshot, Sync
from rpcshare.shares.page import Page
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials, ShareCredentials
from rpcshare.shares.state import SessionIndex
from rpcshare.shares.subscriptions import Subscription

__all__ = [
    "Credentials",
    "Deleted",
    "Event",
    "LogSettings",
    "Page",
    "SessionIndex",
    "ShareCredentials",
    "ShareService",
    "Snapshot",
    "Subscription",
    "Sync",
]

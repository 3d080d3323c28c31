"""Shares of a service, in a store that is looked after."""

from support.service_fixtures import *  # noqa: F403 -- fixtures, which pytest finds by their names

"""Copies that the commands make of stores bring nothing back that was ended, in whatever order."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.s3_server import ENDPOINT_VARIABLE, S3Server, moto_server, real_server
from trust.copied_sites import CLOSED, CLOSING, OPEN, Ended, Site, finished, strangers_see

pytestmark = [pytest.mark.slow, pytest.mark.rare, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """A real server where there is one, else moto's."""
    with real_server() if os.environ.get(ENDPOINT_VARIABLE) else moto_server() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """Return a place that nothing has been written to."""
    at = s3.location()
    return f"s3://{at.bucket}/{at.prefix}?endpoint_url={at.endpoint_url}&region=us-east-1"


def copied(source: Site, target: Site) -> None:
    done = source.copied_to(target)
    assert done.status == 0, done.said


def again_after_the_switch(old: Site, new: Site, _third: Site, ended: Ended) -> Site:
    copied(old, new)
    ended.end_in(new)
    copied(old, new)
    return new


def once_more_when_the_servers_have_stopped(old: Site, new: Site, _third: Site, ended: Ended) -> Site:
    copied(old, new)
    ended.end_in(old)
    copied(old, new)
    copied(old, new)
    return new


def there_and_back(old: Site, new: Site, _third: Site, ended: Ended) -> Site:
    copied(old, new)
    ended.end_in(new)
    copied(new, old)
    copied(old, new)
    return old


def from_both_into_a_third(old: Site, new: Site, third: Site, ended: Ended) -> Site:
    copied(old, new)
    copied(old, third)
    ended.end_in(new)
    copied(new, third)
    copied(old, third)
    return third


def over_it_though_it_differs(old: Site, new: Site, _third: Site, ended: Ended) -> Site:
    copied(old, new)
    ended.end_in(new)
    old.copied_to(new, "--overwrite")
    return new


ORDERS = (
    again_after_the_switch,
    once_more_when_the_servers_have_stopped,
    there_and_back,
    from_both_into_a_third,
    over_it_though_it_differs,
)


@pytest.mark.parametrize("order", ORDERS)
def test_what_was_ended_stays_ended(tmp_path: Path, order: Callable[[Site, Site, Site, Ended], Site]) -> None:
    old, new, third = (Site(tmp_path, name) for name in ("old", "new", "third"))
    ended = Ended.made_in(old)
    assert strangers_see(order(old, new, third, ended), ended) == CLOSED


def test_what_was_ended_in_a_bucket_stays_ended_there_and_in_the_file_it_came_from(
    tmp_path: Path, bucket: str
) -> None:
    old, new = Site(tmp_path, "old"), Site(tmp_path, "new", bucket)
    ended = Ended.made_in(old)
    copied(old, new)
    assert strangers_see(new, ended) == OPEN
    ended.end_in(new)
    copied(old, new)
    copied(new, old)
    assert (strangers_see(new, ended), strangers_see(old, ended)) == (CLOSED, CLOSED)


def test_an_older_backup_opens_nothing_unless_told_to(tmp_path: Path) -> None:
    site = Site(tmp_path, "site")
    ended = Ended.made_in(site)
    site.run("export", str(tmp_path / "backup"))
    ended.end_in(site)
    done = finished("restore", tmp_path / "backup", "--store", site.store)
    assert done.status == 1
    assert "restored: 1, there already: 0" in done.said
    # To bring deleted shares back is what a backup is for. It has no keys in it.
    assert strangers_see(site, ended) == {**CLOSED, "deleted": 200}


@pytest.mark.parametrize("closing", ["source", "target"])
def test_a_share_closed_in_one_store_stays_closed_however_often_the_other_changed_it(
    tmp_path: Path, closing: str
) -> None:
    old, new = Site(tmp_path, "old"), Site(tmp_path, "new")
    ended = Ended.made_in(old)
    copied(old, new)
    changing = {name: [{"expiresIn": "9d"}, {"expiresIn": "8d"}] for name in CLOSING}
    ended.change_in(old, CLOSING if closing == "source" else changing)
    ended.change_in(new, CLOSING if closing == "target" else changing)
    copied(old, new)
    copied(new, old)
    for site in (old, new):
        site.run("doctor")
    closed = {name: strangers_see(site, ended) for name, site in (("old", old), ("new", new))}
    assert {name: (seen["private"], seen["password"]) for name, seen in closed.items()} == {
        "old": (401, 401),
        "new": (401, 401),
    }

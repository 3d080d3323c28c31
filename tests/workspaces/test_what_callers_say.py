"""What a workspace is made from: names, limits, mounts, hosts, and the URL of a repository."""

import pytest

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.workspaces.git_source import parse_git_url
from rpcshare.workspaces.resources import Bounds, parse_resources
from rpcshare.workspaces.workspace import parse_changes, parse_new_workspace

BOUNDS = Bounds(memory=2**31, cpu=4.0, disk=2**32)
OTHER = "wsp_" + "0" * 24


def refused(work) -> str:
    with pytest.raises(ShareError) as caught:
        work()
    assert caught.value.code in (ErrorCode.INVALID_ARGUMENT, ErrorCode.WORKSPACE_NOT_FOUND)
    return caught.value.message


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (None, "expected"),
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": ".hidden"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": 5}, "name"),
        ({"name": "a", "nmae": 1}, "nmae"),
        ({"name": "a", "source": {"git": ""}}, "source.git"),
        ({"name": "a", "source": {"git": "https://a/b", "ref": "--upload-pack=x"}}, "source.ref"),
        ({"name": "a", "source": {"git": "https://a/b", "ref": "a..b"}}, "source.ref"),
        ({"name": "a", "source": {"git": "https://a/b", "ref": "a b"}}, "source.ref"),
        ({"name": "a", "mounts": [{"name": "x", "workspace": OTHER, "readonly": False}]}, "read-only"),
        ({"name": "a", "mounts": [{"name": "../x", "workspace": OTHER}]}, "mounts"),
        ({"name": "a", "mounts": [{"name": "x", "workspace": "../y"}]}, "no such workspace"),
        ({"name": "a", "mounts": [{"name": "x", "workspace": OTHER}] * 2}, "one name"),
        ({"name": "a", "mounts": [{"name": f"x{n}", "workspace": OTHER} for n in range(17)]}, "at most"),
        ({"name": "a", "resources": {"memory": "lots"}}, "resources.memory"),
        ({"name": "a", "resources": {"memory": "3GiB"}}, "resources.memory"),
        ({"name": "a", "resources": {"memory": 1}}, "resources.memory"),
        ({"name": "a", "resources": {"cpu": "many"}}, "resources.cpu"),
        ({"name": "a", "resources": {"cpu": float("inf")}}, "resources.cpu"),
        ({"name": "a", "resources": {"cpu": "nan"}}, "resources.cpu"),
        ({"name": "a", "resources": {"cpu": 5}}, "resources.cpu"),
        ({"name": "a", "resources": {"disk": "5TiB"}}, "resources.disk"),
        ({"name": "a", "resources": {"disk": -1}}, "resources.disk"),
        ({"name": "a", "resources": {"timeout": "soon"}}, "resources.timeout"),
        ({"name": "a", "resources": {"timeout": 0}}, "resources.timeout"),
        ({"name": "a", "resources": {"gpu": 1}}, "gpu"),
        ({"name": "a", "hosts": ["10.0.0.1/8"]}, "hosts"),
        ({"name": "a", "hosts": ["http://a"]}, "hosts"),
        ({"name": "a", "hosts": ["*"]}, "hosts"),
        ({"name": "a", "hosts": ["a:b"]}, "hosts"),
        ({"name": "a", "hosts": ["10.0.0.1"]}, "hosts"),
        ({"name": "a", "hosts": ["a.example:0"]}, "hosts"),
        ({"name": "a", "hosts": ["a"] * 65}, "hosts"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(given, named):
    assert named in refused(lambda: parse_new_workspace(given, BOUNDS))


@pytest.mark.parametrize(
    ("given", "memory", "cpu", "disk", "timeout"),
    [
        ({}, 2**31, 4.0, 2**32, None),
        ({"memory": "512MiB", "cpu": "500m", "disk": "1GB", "timeout": "2h"}, 2**29, 0.5, 10**9, 7200.0),
        ({"memory": "1.5 GiB", "cpu": 2, "disk": 2**30, "timeout": 60}, 3 * 2**29, 2.0, 2**30, 60.0),
        ({"memory": "100M", "cpu": "0.5"}, 10**8, 0.5, 2**32, None),
    ],
)
def test_limits_have_units(given, memory, cpu, disk, timeout):
    found = parse_resources(given, BOUNDS)
    assert (found.memory, found.cpu, found.disk, found.timeout) == (memory, cpu, disk, timeout)


def test_a_change_leaves_what_it_does_not_name():
    current = parse_resources({"memory": "512MiB", "cpu": 1}, BOUNDS)
    changed = parse_changes({"resources": {"cpu": 2}}, BOUNDS, current)
    assert changed.resources is not None
    assert (changed.resources.memory, changed.resources.cpu) == (2**29, 2.0)
    assert changed.name is None
    assert "source" in refused(lambda: parse_changes({"source": {"git": "https://a/b"}}, BOUNDS, current))


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path"),
    [
        ("https://github.com/acme/site", "https", "github.com", 443, "acme/site"),
        ("https://GitHub.com:8443/a.git", "https", "github.com", 8443, "a.git"),
        ("ssh://git@host.example/a/b.git", "ssh", "host.example", 22, "a/b.git"),
        ("git@host.example:a/b.git", "ssh", "host.example", 22, "a/b.git"),
        ("ssh://git@host.example:2222/~u/b.git", "ssh", "host.example", 2222, "~u/b.git"),
    ],
)
def test_a_url_is_taken_apart(url, scheme, host, port, path):
    found = parse_git_url(url)
    assert (found.scheme, found.host, found.port, found.path) == (scheme, host, port, path)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/b",
        "git://a.example/b",
        "file:///etc",
        "/etc",
        "ext::sh -c id",
        "ext::sh",
        "--upload-pack=touch",
        "-u x@y:z",
        "https://user:secret-of-mine@a.example/b",
        "https://token@a.example/b",
        "ssh://git:secret-of-mine@a.example/b",
        "https://127.0.0.1/a",
        "https://[::1]/a",
        "https://2130706433/a",
        "https://0x7f000001/a",
        "https://a.example/b?x",
        "https://a.example/b#c",
        "https://a.example/",
        "https:///b",
        "ssh://-oProxyCommand=id@a.example/b",
        "ssh://-oProxyCommand=id/b",
        "-oProxyCommand=id@a.example:b",
        "git@a.example:-b",
        "https://a.example/b c",
        "https://a.example/b\nx",
        "https://\u00e4.example/b",
        "https://a.example:99999/b",
    ],
)
def test_a_url_that_is_not_taken_is_refused_and_not_repeated(url):
    assert "secret-of-mine" not in refused(lambda: parse_git_url(url))


def test_a_repository_of_this_machine_is_beneath_its_root(tmp_path):
    root = tmp_path / "root"
    (root / "a.git").mkdir(parents=True)
    (tmp_path / "other.git").mkdir()
    (root / "link").symlink_to("../other.git")
    assert parse_git_url(f"file://{root}/a.git", root).path == str(root / "a.git")
    for path in (f"{root}/link", f"{root}/../other.git", str(root), f"{tmp_path}/other.git", f"{root}/none"):
        refused(lambda path=path: parse_git_url(f"file://{path}", root))

"""The npm packages in clients/: their own tests under Node and Bun, and what they would publish."""

import json
import re

import pytest

from support.npm_packages import BUN, CLIENTS, NPM, built, needs_packages, run_in

pytestmark = [pytest.mark.slow, pytest.mark.node, needs_packages, pytest.mark.timeout(180)]

PACKAGES = ("share-next", "opencode-plugin", "browser")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_packages_tests_pass_under_node(package: str) -> None:
    assert NPM is not None
    run_in(built() / package, NPM, "test", "--silent")


@pytest.mark.rare
@pytest.mark.skipif(not BUN.exists(), reason="needs Bun, from clients/node_modules")
@pytest.mark.parametrize("package", PACKAGES)
def test_a_packages_tests_pass_under_bun(package: str) -> None:
    output = run_in(built() / package, BUN, "test", "--timeout", "30000", "./test/")
    assert " 0 fail" in output


@pytest.mark.parametrize("package", [*PACKAGES, "types"])
def test_a_package_has_all_that_it_needs_and_nothing_else(package: str) -> None:
    assert NPM is not None
    directory = built() / package
    output = run_in(directory, NPM, "pack", "--dry-run", "--json", "--ignore-scripts", "--loglevel=error")
    (packed,) = json.loads(output[output.index("[") :])
    files = {file["path"] for file in packed["files"]}
    sources = {path.stem for path in (directory / "src").glob("*.ts")}
    compiled = {f"dist/{name}{suffix}" for name in sources for suffix in (".js", ".d.ts")}
    assert files == {"package.json", "README.md", "LICENSE"} | (compiled or {"index.d.ts"})


@pytest.mark.parametrize("package", [*PACKAGES, "types"])
def test_no_type_is_left_open(package: str) -> None:
    sources = [
        path for path in (CLIENTS / package).glob("**/*.ts") if not {"node_modules", "dist"} & {*path.parts}
    ]
    assert sources
    for path in sources:
        code = re.sub(r"//.*|/\*.*?\*/", "", path.read_text())
        assert re.findall(r"[:<|&(,]\s*any\b|\bas any\b|\bany\[\]", code) == [], path.name


def test_the_lock_files_name_no_registry() -> None:
    tests = CLIENTS.parent / "tests"
    for directory in (CLIENTS, tests / "opencode", tests / "node", tests / "fork"):
        path = directory / "package-lock.json"
        packages = json.loads(path.read_text())["packages"].values()
        assert [package["resolved"] for package in packages if "://" in package.get("resolved", "")] == []

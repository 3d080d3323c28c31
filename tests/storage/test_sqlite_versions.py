"""Versions of SQLite by which a store may be lost, and those that are well."""

import pytest

from rpcshare.storage.sqlite_versions import wal_reset_warning


@pytest.mark.parametrize(
    "version", [(3, 7, 0), (3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 50, 6), (3, 51, 0), (3, 51, 2)]
)
def test_the_wal_reset_fault_is_warned_of_with_what_to_do(version: tuple[int, int, int]) -> None:
    warning = wal_reset_warning(version)
    assert warning is not None
    assert warning.startswith(f"SQLite {'.'.join(map(str, version))} has the WAL-reset fault")
    assert "Use 3.51.3 or newer" in warning


@pytest.mark.parametrize(
    "version", [(3, 6, 23), (3, 44, 6), (3, 44, 9), (3, 50, 7), (3, 51, 3), (3, 52, 0), (3, 53, 0), (4, 0, 0)]
)
def test_versions_without_it_are_well(version: tuple[int, int, int]) -> None:
    assert wal_reset_warning(version) is None

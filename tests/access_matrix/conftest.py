"""One run of the whole matrix, of which each part happens when it is first asked for."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from access_matrix.runs import MatrixRun


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatrixRun]:
    with ExitStack() as stack:
        yield MatrixRun(tmp_path_factory, stack)

"""The two sides of a transcript."""

import pytest
from transcript import Api, BareSession


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def server(api: Api) -> BareSession:
    return BareSession(api)


@pytest.fixture
def client() -> BareSession:
    return BareSession()

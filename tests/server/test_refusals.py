"""What is refused, as HTTP tells it, and as the operator's log does."""

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from support.running_server import RunningServer


@pytest.mark.parametrize("base", ["/api/share", "/api/shares"])
def test_a_method_that_a_share_does_not_have_is_answered_with_those_that_it_has(
    server: RunningServer, base: str
) -> None:
    answer = httpx.put(f"{server.url}{base}/00000001")
    assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE", "PATCH"}


def test_a_refused_handshake_is_no_error_in_the_log(server: RunningServer) -> None:
    before = server.log.stat().st_size
    with pytest.raises(InvalidStatus), connect(server.url.replace("http", "ws") + "/rpc", proxy=None):
        pass
    # A request behind it: what the handshake had logged would be there by its answer.
    httpx.get(f"{server.url}/healthz")
    with server.log.open() as log:
        log.seek(before)
        assert "error" not in log.read()

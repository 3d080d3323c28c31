"""The server that the other tests run: started again, or failing to start."""

import pytest

import rpcshare
from support.running_server import RunningServer

pytestmark = pytest.mark.slow  # a server of its own

ITEMS = [{"type": "message", "data": {"id": "msg_1"}}]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restarted_server_has_its_shares_at_the_same_place(tmp_path, end):
    with RunningServer(tmp_path / "data") as server:
        url = server.url
        with rpcshare.connect_blocking(url, token=server.token) as client:
            share = client.create_share("ses_12345678", ITEMS)
        getattr(server, end)()
        server.restart()
        assert server.url == url
        with rpcshare.connect_blocking(url, token=server.token) as client:
            assert client.get_share(share.id)["messages"] == [{"id": "msg_1"}]


def test_a_server_that_cannot_start_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="--store: "):
        RunningServer(tmp_path / "data", "--store=nonesuch://")

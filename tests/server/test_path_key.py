"""The credential in the path, for clients that can be given a URL and nothing else."""

import httpx
import pytest

from support.running_server import RunningServer


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_base_url_may_end_with_a_slash(server: RunningServer, ending: str) -> None:
    base_url = f"{server.url}/k/{server.token}{ending}"
    answer = httpx.post(f"{base_url}/api/share", json={"sessionID": "ses_path_key_slash_01"})
    assert answer.status_code == 200
    assert answer.json()["id"] == "slash_01"

"""Values in lines of a .env file whose names say that they are secret, wherever the file is shown."""

import json
from typing import Any

import pytest

from rpcshare.shares.redaction import redact


def redacted(value: Any) -> Any:
    return json.loads(redact(json.dumps(value, ensure_ascii=False).encode()))


MARK = "[redacted:env-value]"
SECRETS = [
    ("DB_PASSWORD", "hunter2-prod"),
    ("PASSWORD", "correcthorse"),
    ("PGPASSWORD_MAIN_SECRET", "p@$$w0rd!"),
    ("JWT_SECRET", "abc123"),
    ("SECRET_KEY", "django9insecure&key"),
    ("SESSION_TOKEN", "0a1b2c3d4e5f"),
    ("STRANGE_API_KEY", "Zk3nV8q2Lm"),
    ("APIKEY", "Zk3nV8q2Lm"),
    ("API_KEY_PROD", "Zk3nV8q2Lm="),
]
PLACES = {
    "file": "NODE_ENV=production\n{}\nPORT=80\n",
    "alone": "{}",
    "diff": "@@ -1,2 +1,2 @@\n NODE_ENV=production\n-{}\n+{}\n",
    "numbered": "00001| A=b\n00002| {}\n",
    "read": "1: A=b\n2: {}\n(end of file)",
    "arrow": "     1→A=b\n     2→{}\n",
    "cat -n": "     1\tA=b\n     2\t{}\n",
    "export": "export {}\r\n",
    "comment": "{} # of the test\n",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("quote", ["", '"', "'"], ids=["bare", "double", "single"])
@pytest.mark.parametrize(("name", "value"), SECRETS)
def test_a_value_is_replaced_and_its_name_stays(name: str, value: str, quote: str, place: str) -> None:
    before = PLACES[place].replace("{}", f"{name}={quote}{value}{quote}")
    after = PLACES[place].replace("{}", f"{name}={quote}{MARK}{quote}")
    assert redacted({"state": {"output": before}}) == {"state": {"output": after}}
    assert redacted([{"file": ".env", "patch": before}]) == [{"file": ".env", "patch": after}]


@pytest.mark.parametrize(
    "line",
    [
        "PORT=8080808080",
        "KEYBOARD=qwerty-1234",
        "MAX_TOKENS=4096000",
        "TOKENIZERS_PARALLELISM=false1234",
        "API_KEY=",
        "API_KEY=your-api-key-1",
        "API_KEY=<your key 1>",
        "API_KEY=${OTHER_KEY_12}",
        "API_KEY=$OTHER_KEY_12",
        "PASSWORD=xxxxxxxx",
        "PASSWORD=********",
        "PASSWORD=changeme",
        "SECRET=process.env.SECRET1",
        "KEY=primary",
        "SSH_KEY=/home/dev/.ssh/id_ed25519",
        "TOKEN_LIMIT=100000",
        "the PASSWORD=hunter2-prod in prose",
        "const API_KEY=loadKey1()",
        "PASSWORD = hunter2",
    ],
)
def test_other_lines_stay_as_they_are(line: str) -> None:
    value = {"output": f"A=b\n{line}\nC=d\n"}
    assert redacted(value) == value


@pytest.mark.timeout(60)
@pytest.mark.parametrize("hostile", ["KEY=", "A_KEY=1", "\n KEY=a", '"KEY', "\n0: ", "SECRET_", "PASSWORD='"])
def test_no_text_makes_it_slow(hostile: str) -> None:
    # In quadratic time this would take hours.
    assert redact(json.dumps(hostile * 500_000).encode())

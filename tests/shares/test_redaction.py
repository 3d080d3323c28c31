"""Redaction: which strings are taken for credentials, wherever they stand, and which are not."""

import base64
import hashlib
import json
import random
import sysconfig
import uuid
from pathlib import Path

import pytest

from rpcshare import jsontext
from rpcshare.shares.credential_shapes import SHAPES
from rpcshare.shares.redaction import redact, redact_batch
from rpcshare.shares.syncdata import parse_batch
from support.invented_credentials import (
    ALNUM,
    BASE64,
    CREDENTIALS,
    HEX,
    PRIVATE_KEYS,
    json_web_token,
    pem,
    some,
)

RECORDING = Path(__file__).parent.parent / "fixtures" / "opencode-share-traffic.jsonl"
NODE_MODULES = Path(__file__).parent.parent / "node" / "node_modules"
NAMES = [f"{kind}-{index}" for index, (kind, _) in enumerate(CREDENTIALS)]


def redacted(text: str) -> str:
    """Return what becomes of ``text`` as a value in JSON."""
    value = jsontext.decode(redact(jsontext.encode({"text": text})))
    assert isinstance(value["text"], str)
    return value["text"]


# --- where a credential may stand -----------------------------------------------------------------

PLACES = {
    "alone": "{}",
    "prose": "I have put the key {} into the settings, and it works.",
    "end of a sentence": "The key is {}, not the other one.",
    "shell": "$ export API_KEY={}\n$ curl -H 'Authorization: Bearer {}' https://api.example\n",
    ".env": "NODE_ENV=production\nKEY={}\nQUOTED=\"{}\"\nSINGLE='{}'\n",
    "line of its own": "the key:\n{}\nis yours",
    "tabs": "a\t{}\tb\r\n{}\r\n",
    "markdown": "Use `{}` or\n\n```sh\n{}\n```\n\n- **{}**\n",
    "diff": "--- a/.env\n+++ b/.env\n@@ -1 +1 @@\n-{}\n+{}\n",
    "yaml": "env:\n  key: {}\n  list: [{}, '{}']\n",
    "url": "https://api.example/v1?token={}&page=1",
    "escape in a URL": "https://api.example/v1?header=Bearer%20{}&page=1",
    "colours": "\x1b[32m{}\x1b[0m \x1b[01;31m{}\x1b[m\x1b[K{}",
    "markup": "<code>{}</code>",
    "a line number": "     7\t{}\n00007| {}",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("kind", "credential"), CREDENTIALS, ids=NAMES)
def test_a_credential_is_replaced_by_its_kind_wherever_it_stands(kind, credential, place):
    if kind == "telegram-token":
        credential, mark = "1234567890" + credential, f"1234567890:AA[redacted:{kind}]"
    else:
        mark = f"[redacted:{kind}]"
    template = PLACES[place]
    assert redacted(template.replace("{}", credential)) == template.replace("{}", mark)


@pytest.mark.parametrize(("kind", "credential"), CREDENTIALS, ids=NAMES)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_credential_is_found_in_json_within_json_which_stays_json(kind, credential, depth):
    prefix = "1234567890" if kind == "telegram-token" else ""
    text = f'first\n{prefix}{credential}\t"quoted" \\ \u00e9\n'
    for _ in range(depth):
        text = json.dumps({"text": text, "more": [1, "\\"]})
    found = redacted(text)
    for _ in range(depth):
        found = json.loads(found)["text"]
    assert f"[redacted:{kind}]" in found
    assert credential not in found
    assert found.endswith('\t"quoted" \\ \u00e9\n')


def test_the_corpus_is_large_and_has_every_shape_by_its_lead():
    leads = {shape.kind for shape in SHAPES}
    assert len(CREDENTIALS) >= 60
    in_context = {"aws-secret-key", "azure-storage-key", "slack-webhook", "discord-webhook", "url-password"}
    assert {kind for kind, _ in CREDENTIALS} == leads - in_context


# --- credentials that are told by what stands around them -------------------------------------------

SECRET = some(39, BASE64) + "a"
STORAGE_KEY = some(86, BASE64) + "=="
PASSWORD = "Aa1" + some(20)
SLACK_PATH = f"T{'0' * 8}A/B{'0' * 8}A/{some(24)}"
DISCORD_TOKEN = some(68)


@pytest.mark.parametrize(
    ("kind", "secret", "text"),
    [
        ("aws-secret-key", SECRET, "aws_secret_access_key = {}"),
        ("aws-secret-key", SECRET, "export AWS_SECRET_ACCESS_KEY={}\n"),
        ("aws-secret-key", SECRET, 'AWS_SECRET_ACCESS_KEY="{}"'),
        ("aws-secret-key", SECRET, '{"Credentials": {"SecretAccessKey": "{}", "Expiration": 1}}'),
        ("aws-secret-key", SECRET, "{ secretAccessKey: '{}' }"),
        ("azure-storage-key", STORAGE_KEY, "AccountName=me;AccountKey={};EndpointSuffix=core.windows.net"),
        ("url-password", PASSWORD, "DATABASE_URL=postgres://app:{}@db.example:5432/app"),
        ("url-password", PASSWORD, "redis://:{}@cache.example"),
        ("slack-webhook", SLACK_PATH, "curl https://hooks.slack.com/services/{} -d '{\"text\": 1}'"),
        ("discord-webhook", DISCORD_TOKEN, "https://discord.com/api/webhooks/123456789012345678/{}"),
    ],
)
def test_a_secret_that_its_context_tells_is_replaced_and_the_context_stays(kind, secret, text):
    assert redacted(text.replace("{}", secret, 1)) == text.replace("{}", f"[redacted:{kind}]", 1)
    nested = json.dumps({"text": text.replace("{}", secret, 1)})
    assert json.loads(redacted(nested))["text"] == text.replace("{}", f"[redacted:{kind}]", 1)


def test_a_webhook_is_found_where_slashes_are_escaped():
    text = json.dumps(f"https://hooks.slack.com/services/{SLACK_PATH}").replace("/", "\\/")
    assert json.loads(redacted(text)) == "https://hooks.slack.com/services/[redacted:slack-webhook]"


# --- private keys -----------------------------------------------------------------------------------

KEY_NAMES = [key.splitlines()[0].strip("-") for key in PRIVATE_KEYS]


@pytest.mark.parametrize("key", PRIVATE_KEYS, ids=KEY_NAMES)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\\n"], ids=["LF", "CRLF", "escaped"])
def test_a_private_key_is_replaced_as_a_whole(key, newline):
    key = key.replace("\n", newline)
    assert redacted(f"KEY='{key}'\nmore") == "KEY='[redacted:private-key]'\nmore"


@pytest.mark.parametrize("key", PRIVATE_KEYS, ids=KEY_NAMES)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_private_key_is_found_in_json_within_json(key, depth):
    text = key + "\n"
    for _ in range(depth):
        text = json.dumps({"type": "service_account", "private_key": text, "client_id": "1"})
    found = redacted(text)
    for _ in range(depth):
        found = json.loads(found)["private_key"]
    assert found == "[redacted:private-key]\n"


@pytest.mark.parametrize(
    "written",
    [
        lambda line: f"+{line}",
        lambda line: f"-{line}",
        lambda line: f"  {line}",
        lambda line: f"> {line}",
        lambda line: f'    "{line}\\n"',
        lambda line: f"00012| {line}",
    ],
    ids=["added", "removed", "indented", "quoted", "source", "numbered"],
)
@pytest.mark.parametrize("key", PRIVATE_KEYS, ids=KEY_NAMES)
def test_a_private_key_is_found_whatever_its_lines_begin_with(key, written):
    found = redacted("\n".join(written(line) for line in key.splitlines()))
    assert "[redacted:private-key]" in found
    assert not any(line in found for line in key.splitlines()[1:-1] if line)


def test_a_private_key_that_has_been_cut_short_is_replaced_as_far_as_it_goes():
    cut = "\n".join(pem("RSA PRIVATE KEY").splitlines()[:9])
    assert redacted(f"{cut}\n(cut)") == "[redacted:private-key]\n(cut)"


def test_of_two_keys_each_is_replaced_and_what_is_between_stays():
    text = "\nand\n".join(PRIVATE_KEYS[:2])
    assert redacted(text) == "[redacted:private-key]\nand\n[redacted:private-key]"


# --- what is no credential ----------------------------------------------------------------------------


def assert_untouched(text: str) -> None:
    encoded = jsontext.encode({"text": text})
    result = redact(encoded)
    if result != encoded:
        place = next(i for i, (a, b) in enumerate(zip(encoded, result, strict=False)) if a != b)
        pytest.fail(f"{encoded[max(0, place - 60) : place + 80]!r}")


@pytest.mark.parametrize(
    "text",
    [
        "sk-proj-your-openai-api-key-goes-here",
        "sk-" + "x" * 48,
        "sk-ant-api03-your-key-goes-right-here",
        "xoxb-your-slack-bot-token-goes-here",
        "ghp_" + "1" * 10,
        "risk-" + some(40),
        "task-" + some(40),
        "my_ghp_" + some(36),
        "npm_config_registry_of_the_company_mirror",
        "hf_hub_download_with_a_very_long_name_of_a_function",
        "AKIA",
        "NOTAKIA" + "A" * 16,
        "AIza" + some(20),
        "postgres://user:password@localhost:5432/db",
        "https://user:correct-horse-battery-staple@example.com",
        "https://example.com:8443/path/Aa1Aa1Aa1Aa1Aa1Aa1Aa1@scope",
        "-----BEGIN CERTIFICATE-----\nMIID" + "A" * 60 + "\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIB" + "A" * 60 + "\n-----END PUBLIC KEY-----",
        'if "-----BEGIN PRIVATE KEY-----" in text and "-----END PRIVATE KEY-----" in text:\n    found(text)',
        "It begins with -----BEGIN RSA PRIVATE KEY----- and so on, which is how you know it.",
        "aws_secret_access_key = os.environ['AWS_SECRET_ACCESS_KEY']",
        "aws_secret_access_key: " + "a" * 64,
        "token_AA:AA",
        "eyJhbGciOiJIUzI1NiJ9",
        "data:application/json;base64,eyJ2ZXJzaW9uIjozfQ==",
        "C:\\ghp\\npm_modules\\r8_files",
    ],
)
def test_what_only_begins_like_a_credential_stays(text):
    assert_untouched(text)


def test_an_escape_is_never_cut():
    # "\npm_…" is a line feed and "pm_…" to whoever decodes it.
    assert_untouched("\npm_" + some(36) + "\rsk_" + some(43) + "\ntn_" + "1" * 11 + some(35))


def test_the_recorded_traffic_stays():
    for line in RECORDING.read_text("utf-8").splitlines():
        assert_untouched(line)


def test_ordinary_python_stays():
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    sources += sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-s]*/*.py"))
    assert len(sources) > 300
    for source in sources:
        if not {"site-packages", "test"} & set(source.parts):  # whose tests have keys of their own
            assert_untouched(source.read_text("utf-8", "replace"))


@pytest.mark.skipif(not NODE_MODULES.is_dir(), reason="needs node_modules: run make install with Node")
def test_ordinary_javascript_and_lock_files_stay():
    sources = [
        path for kind in ("js", "mjs", "cjs", "ts", "json", "md") for path in NODE_MODULES.rglob(f"*.{kind}")
    ]
    assert sources
    for source in sources:
        if source.is_file():
            assert_untouched(source.read_text("utf-8", "replace"))
    assert_untouched((NODE_MODULES.parent / "package-lock.json").read_text("utf-8"))


def test_hashes_identifiers_and_a_history_stay():
    lines = []
    for number in range(5000):
        digest = hashlib.sha512(str(number).encode())
        one = base64.b64encode(digest.digest()).decode()
        lines += [
            f"commit {digest.hexdigest()[:40]}",
            f"index {digest.hexdigest()[:7]}..{digest.hexdigest()[7:14]} 100644",
            f"sha256:{digest.hexdigest()[:64]} key-{digest.hexdigest()[:32]} md5={digest.hexdigest()[:32]}",
            f'integrity sha512-{one} ETag: W/"{digest.hexdigest()[:32]}"',
            f"{uuid.UUID(digest.hexdigest()[:32])} ses_{digest.hexdigest()[:26]} prt_{one[:26]}",
        ]
    assert_untouched("\n".join(lines))


@pytest.mark.parametrize(
    "encode",
    [
        bytes.hex,
        lambda data: base64.b64encode(data).decode(),
        lambda data: base64.urlsafe_b64encode(data).decode(),
    ],
    ids=["hex", "base64", "base64url"],
)
def test_random_bytes_as_text_stay(encode):
    data = random.Random(5).randbytes(5_000_000)
    assert_untouched(encode(data))
    lines = encode(data[:1_000_000])
    assert_untouched("\n".join(lines[start : start + 76] for start in range(0, len(lines), 76)))


def test_an_image_and_a_source_map_stay():
    image = base64.b64encode(b"\x89PNG\r\n\x1a\n" + random.Random(6).randbytes(1_000_000)).decode()
    mapping = base64.b64encode(json.dumps({"version": 3, "mappings": "AAAA;" * 1000}).encode()).decode()
    assert_untouched(f"![](data:image/png;base64,{image})\n//# sourceMappingURL=data:;base64,{mapping}")


def test_minified_code_stays():
    words = random.Random(7).choices(ALNUM + "_$", k=200_000)
    assert_untouched(
        "".join(f"{a}.{b}=>{c}-{d},{e}_{a}:" for a, b, c, d, e in zip(*[iter(words)] * 5, strict=True))
    )


# --- text that is made to be slow ------------------------------------------------------------------------

FORMS = ["{}", " {}", "\n{}", "{}a", "{}1", "{}.", "%20{}"]
OTHERS = [
    *("-----BEGIN PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----\na", "-----", "://a:", "://a:a1A"),
    *("-", "_", ".", ":", "/", "A", "\\", '"', "k-", "a-a_a.", "eyJaaaaaaaaaa.", "\x1b[0m", "AccountKey=a"),
]


@pytest.mark.parametrize("text", sorted({shape.lead for shape in SHAPES}) + OTHERS)
def test_no_text_takes_more_time_than_its_length_does(text):
    # So long a text would take minutes, if the time grew with its square.
    for form in FORMS:
        unit = form.format(text)
        redacted(unit * (100_000 // len(unit)))


# --- batches ------------------------------------------------------------------------------------------


def test_every_part_of_a_batch_is_gone_through_keys_included():
    key = "ghp_" + some(36)
    batch = parse_batch(
        [
            {"type": "session", "data": {"title": key}},
            {"type": "message", "data": {"id": key, key: "a name of a member"}},
            {"type": "part", "data": {"id": "p", "state": {"output": [f"x={key}"]}}},
            {"type": "session_diff", "data": [{"after": f"+{key}"}]},
            {"type": "model", "data": [{"id": key, "providerID": key}]},
        ]
    )
    result = redact_batch(batch)
    texts = [text for item in result.items for value in item.values for text in value]
    assert not any(key.encode() in text for text in texts)
    assert [item.values[0][0] for item in result.items] == [
        b"",
        b'"[redacted:github-token]"',
        b'"p"',
        b"",
        b'["[redacted:github-token]","[redacted:github-token]"]',
    ]
    assert result.size == sum(map(len, texts))


@pytest.mark.parametrize(("kind", "credential"), [*CREDENTIALS, ("private-key", PRIVATE_KEYS[0])])
def test_a_credential_is_found_among_many_values_and_they_stay(kind, credential):
    parts = [{"id": f"prt_{number}", "text": "nothing but words"} for number in range(300)]
    plain = parse_batch([{"type": "part", "data": part} for part in parts])
    parts[200]["text"] = f"1234567890{credential}" if kind == "telegram-token" else credential
    result = redact_batch(parse_batch([{"type": "part", "data": part} for part in parts]))
    changed = [
        after
        for before, after in zip(plain.items[0].values, result.items[0].values, strict=True)
        if after != before
    ]
    assert [key for key, _ in changed] == [b'"prt_200"']
    assert f"[redacted:{kind}]".encode() in changed[0][1]


def test_a_webhook_with_escaped_slashes_is_found_among_many_values():
    text = json.dumps("https://hooks.slack.com/services/TA000000/BA000000/aaaaaaaa").replace("/", "\\/")
    parts = [{"type": "part", "data": {"id": str(number), "text": text}} for number in range(100)]
    result = redact_batch(parse_batch(parts))
    assert all(b"[redacted:slack-webhook]" in body for _, body in result.items[0].values)


def test_text_with_halves_of_surrogate_pairs_is_gone_through_too():
    text = jsontext.encode({"text": "\ud83dghp_" + some(36) + "\ude00"})
    assert jsontext.decode(redact(text)) == {"text": "\ud83d[redacted:github-token]\ude00"}


def test_a_credential_beside_others_is_told_apart():
    both = f"{json_web_token()} AKIA{some(16, 'ABCDEF234567')} {some(64, HEX)}"
    assert redacted(both) == f"[redacted:jwt] [redacted:aws-access-key] {both.split()[2]}"

"""Credentials in the shapes of real ones, with invented values.

They are put together when the tests run: the scanners of code forges would take them for real in a file.
"""

import base64
import json
import random
import string
from collections.abc import Iterator

DIGITS = string.digits
HEX = string.digits + "abcdef"
LOWER = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits
ALNUM = string.ascii_letters + string.digits
WORD = ALNUM + "-_"
BASE64 = ALNUM + "+/"

_random = random.Random("rpcshare")


def some(count: int, of: str = ALNUM) -> str:
    """Return ``count`` characters, the last of which is neither a hyphen nor an underscore."""
    text = "".join(_random.choices(of, k=count - 1))
    return text + _random.choice([each for each in of if each not in "-_"])


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def json_web_token() -> str:
    header, claims = {"alg": "EdDSA", "typ": "JWT"}, {"sub": some(8), "exp": 1757214689}
    return f"{_encoded(header)}.{_encoded(claims)}.{some(86, WORD)}"


def pem(label: str, headers: str = "", length: int = 1592) -> str:
    body = some(length, BASE64)
    lines = "\n".join(body[start : start + 64] for start in range(0, length, 64))
    return f"-----BEGIN {label}-----\n{headers}{lines}\n-----END {label}-----"


def _all() -> Iterator[tuple[str, str]]:  # noqa: PLR0915 -- a list, told one by one
    yield "openai-key", "sk-" + some(20) + "T3Blbk" + "FJ" + some(20)
    yield "openai-key", "sk-proj-" + some(74, WORD) + "T3Blbk" + "FJ" + some(74, WORD)
    yield "openai-key", "sk-svcacct-" + some(74, WORD) + "T3Blbk" + "FJ" + some(74, WORD)
    yield "openai-key", "sk-admin-" + some(58, WORD) + "T3Blbk" + "FJ" + some(58, WORD)
    yield "openai-key", "sk-" + some(32, HEX)
    yield "anthropic-key", "sk-ant-" + "api03-" + some(93, WORD) + "AA"
    yield "anthropic-key", "sk-ant-" + "admin01-" + some(93, WORD) + "AA"
    yield "anthropic-key", "sk-ant-" + "oat01-" + some(93, WORD) + "AA"
    yield "openrouter-key", "sk-or-" + "v1-" + some(64, HEX)
    yield "huggingface-token", "hf_" + some(34)
    yield "firecrawl-key", "fc-" + some(32, HEX)
    yield "tavily-key", "tvly-" + some(32)
    yield "tavily-key", "tvly-dev-" + some(32)
    yield "langfuse-key", "sk-lf-3f1c2d4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f"
    yield "groq-key", "gsk_" + some(52)
    yield "xai-key", "xai-" + some(80)
    yield "replicate-token", "r8_" + some(37)
    yield "perplexity-key", "pplx-" + some(48)
    for lead in ("ghp", "gho", "ghu", "ghs", "ghr"):
        yield "github-token", lead + "_" + some(36)
    yield "github-token", "github_" + "pat_" + some(22) + "_" + some(59)
    yield "gitlab-token", "glpat-" + some(20, ALNUM)
    yield "gitlab-token", "glpat-" + some(27, WORD) + ".01." + some(9, LOWER)
    yield "gitlab-token", "glrt-" + "t1_" + some(20)
    yield "gitlab-token", "gldt-" + some(20)
    yield "npm-token", "npm_" + some(36)
    yield "pypi-token", "pypi-" + "AgEIcHlwaS5vcmc" + some(140, WORD)
    yield "rubygems-key", "rubygems_" + some(48, HEX)
    yield "docker-token", "dckr_" + "pat_" + some(27, WORD)
    yield "aws-access-key", "AKIA" + some(16, string.ascii_uppercase + "234567")
    yield "aws-access-key", "ASIA" + some(16, string.ascii_uppercase + "234567")
    yield "google-api-key", "AIza" + "Sy" + some(33, WORD)
    yield "google-token", "ya29." + "a0" + some(160, WORD)
    yield "google-client-secret", "GOCSPX-" + some(28, WORD)
    yield "digitalocean-token", "dop_" + "v1_" + some(64, HEX)
    yield "cloudflare-key", "v1.0-" + some(24, HEX) + "-" + some(146, HEX)
    yield "databricks-token", "dapi" + some(32, HEX)
    yield "databricks-token", "dapi" + some(32, HEX) + "-3"
    yield "vault-token", "hvs." + "CAES" + some(90, WORD)
    yield "vault-token", "hvb." + "AAAA" + some(140, WORD)
    yield "pulumi-token", "pul-" + some(40, HEX)
    yield "doppler-token", "dp.pt." + some(43)
    yield "supabase-token", "sbp_" + some(40, HEX)
    yield "planetscale-token", "pscale_" + "tkn_" + some(43, WORD)
    yield "tailscale-key", "tskey-" + "auth-" + "k" + some(11) + "CNTRL-" + some(32)
    yield "stripe-key", "sk_" + "live_" + some(24)
    yield "stripe-key", "rk_" + "live_" + some(99)
    yield "stripe-key", "sk_" + "test_" + some(24)
    yield "stripe-webhook-secret", "whsec_" + some(32)
    yield "shopify-token", "shpat_" + some(32, HEX)
    yield "square-token", "sq0" + "atp-" + some(22, WORD)
    yield "slack-token", "xoxb-" + f"{some(12, DIGITS)}-{some(13, DIGITS)}-{some(24)}"
    yield "slack-token", "xoxp-" + "-".join(some(12, DIGITS) for _ in range(3)) + "-" + some(32, HEX)
    yield "slack-token", "xoxe-" + "1-" + some(146)
    yield "slack-token", "xoxe." + "xoxp-1-" + some(163)
    yield "slack-token", "xapp-" + f"1-A{some(10, UPPER)}-{some(13, DIGITS)}-{some(64, HEX)}"
    yield "telegram-token", ":AA" + some(33, WORD)
    yield "sendgrid-key", "SG." + some(22, WORD) + "." + some(43, WORD)
    yield "linear-key", "lin_" + "api_" + some(40)
    yield "notion-token", "ntn_" + some(11, DIGITS) + some(35)
    yield "atlassian-token", "ATATT3x" + "FfGF0" + some(171, WORD) + "=" + some(8, UPPER)
    yield "postman-key", "PMAK-" + some(24, HEX) + "-" + some(34, HEX)
    yield "figma-token", "figd_" + some(40, WORD)
    yield "newrelic-key", "NRAK-" + some(27, UPPER)
    yield "grafana-token", "glsa_" + some(32) + "_" + some(8, HEX)
    yield "sentry-token", "sntryu_" + some(64, HEX)
    yield "rpcshare-key", "rsk_" + some(43, WORD)
    yield "rpcshare-view-token", "rsv_" + json_web_token()
    yield "jwt", json_web_token()
    yield "age-key", "AGE-SECRET-" + "KEY-1" + some(58, UPPER)


CREDENTIALS = list(_all())
"""(kind, credential) of each."""

PRIVATE_KEYS = [
    pem("RSA PRIVATE KEY"),
    pem("PRIVATE KEY", length=64),
    pem("EC PRIVATE KEY", length=164),
    pem("ENCRYPTED PRIVATE KEY"),
    pem("RSA PRIVATE KEY", f"Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,{some(32, UPPER)}\n\n"),
    pem("OPENSSH PRIVATE KEY", length=360),
    pem("PGP PRIVATE KEY BLOCK", "Version: GnuPG v2.0\nComment: none\n\n"),
]

"""What the credentials of known providers look like: facts, one a line, with where they come from.

Only shapes that hardly anything else has: a prefix that a provider chose to be told by, and behind it as
many characters, of the kinds, that it has there. Lengths are lower bounds where providers have changed them
before. A source is a page of the provider's, or a rule of gitleaks (on GitHub, config/gitleaks.toml).
"""

from typing import Final

import msgspec

__all__ = ["SHAPES", "Shape"]


class Shape(msgspec.Struct, frozen=True):
    """How to tell one kind of credential, in JSON text."""

    kind: str
    """What stands in the place of one: ``[redacted:KIND]``."""
    lead: str
    """Its first characters, as they are. One that begins as a word does has to be where a word begins."""
    rest: str
    """What follows, as a regular expression; if it has a group, that alone is the secret.

    It takes no quote, and no backslash without what it escapes: so JSON stays JSON.
    """
    source: str
    mark: str | None = None
    """For a quick first look: a regular expression that matches wherever this shape does, and that begins
    with a character that is not frequent in text.

    None: the lead is looked for, which ends with ``-``, ``_`` or ``.``, and at least 16 characters of a token
    behind it.
    """


_W: Final = "[A-Za-z0-9_-]"
_ALNUM: Final = "[A-Za-z0-9]"
_ENDS: Final = r"(?![A-Za-z0-9_-])"
# Among words with hyphens, only what has a digit soon is no prose, and no placeholder: sk-proj-your-key-here.
_DIGIT: Final = "(?=[A-Za-z_-]{0,60}[0-9])"
# A slash, which some encoders escape in JSON: twice, where that JSON is text within ours.
_SLASH: Final = r"(?:\\\\)?/"
# What is between a name and its value, in .env files, JSON, YAML, TOML and code.
_ASSIGNED: Final = r"(?:\\[\\\"'t]|['\" :=>]){1,16}+"


def _gitleaks(*rules: str) -> str:
    return "gitleaks: " + ", ".join(rules)


def _any_lead(kind: str, leads: str, rest: str, source: str) -> list[Shape]:
    return [Shape(kind, lead, rest, source) for lead in leads.split()]


_BEFORE_AT: Final = r"[^\s\"\\/@]{0,128}?"
_URL_AUTHORITY: Final = (
    r"[^\s\"\\/@:?#]{0,64}+:"
    rf"(?={_BEFORE_AT}[0-9])(?={_BEFORE_AT}[a-z])(?={_BEFORE_AT}[A-Z])"
    r"([A-Za-z0-9_.~!$*+,;=%^&-]{16,128}+)@"
)

SHAPES: Final[tuple[Shape, ...]] = (
    # Models
    *_any_lead(
        "openai-key",
        "sk-proj- sk-svcacct- sk-admin- sk-None-",
        f"{_DIGIT}{_W}{{20,}}+",
        _gitleaks("openai-api-key"),
    ),
    # The older form; other providers of models have taken it over, with 32 characters and more.
    Shape("openai-key", "sk-", f"{_DIGIT}{_ALNUM}{{32,}}+{_ENDS}", _gitleaks("openai-api-key")),
    Shape(
        "anthropic-key",
        "sk-ant-",
        f"[a-z]{{2,10}}[0-9]{{2}}-{_DIGIT}{_W}{{20,}}+",
        _gitleaks("anthropic-api-key", "anthropic-admin-api-key"),
    ),
    Shape("openrouter-key", "sk-or-v1-", "[0-9a-f]{48,}+", "openrouter.ai/docs/api-reference/authentication"),
    Shape("huggingface-token", "hf_", f"{_ALNUM}{{30,}}+{_ENDS}", _gitleaks("huggingface-access-token")),
    Shape("groq-key", "gsk_", f"{_ALNUM}{{40,}}+{_ENDS}", "console.groq.com/docs/quickstart"),
    Shape("xai-key", "xai-", f"{_DIGIT}{_ALNUM}{{60,}}+{_ENDS}", "docs.x.ai/docs/tutorial"),
    Shape(
        "replicate-token", "r8_", f"{_ALNUM}{{37,}}+{_ENDS}", "replicate.com/docs/topics/security/api-tokens"
    ),
    Shape("firecrawl-key", "fc-", f"[0-9a-f]{{32}}{_ENDS}", "docs.firecrawl.dev/introduction"),
    Shape("tavily-key", "tvly-", f"{_DIGIT}{_W}{{20,}}+", "docs.tavily.com/documentation/api-reference"),
    Shape("langfuse-key", "sk-lf-", f"{_DIGIT}{_W}{{20,}}+", "langfuse.com/docs: API keys"),
    Shape("perplexity-key", "pplx-", f"{_ALNUM}{{40,}}+{_ENDS}", _gitleaks("perplexity-api-key")),
    # Code and packages
    *_any_lead(
        "github-token",
        "ghp_ gho_ ghu_ ghs_ ghr_",
        f"{_ALNUM}{{36,}}+",
        _gitleaks("github-pat", "github-oauth", "github-app-token", "github-refresh-token"),
    ),
    Shape(
        "github-token",
        "github_pat_",
        f"{_ALNUM}{{22}}_{_ALNUM}{{40,}}+",
        _gitleaks("github-fine-grained-pat"),
    ),
    *_any_lead(
        "gitlab-token",
        "glpat- gldt- glrt- glptt- glcbt- glft- glimt- glsoat- gloas- glffct- glagent-",
        f"{_DIGIT}[A-Za-z0-9_.-]{{20,}}+",
        "docs.gitlab.com/security/tokens, Token prefixes; " + _gitleaks("gitlab-pat"),
    ),
    Shape("npm-token", "npm_", f"{_ALNUM}{{36,}}+{_ENDS}", _gitleaks("npm-access-token")),
    Shape("pypi-token", "pypi-", f"AgE{_W}{{50,}}+", _gitleaks("pypi-upload-token")),
    Shape("rubygems-key", "rubygems_", "[0-9a-f]{48}", _gitleaks("rubygems-api-token")),
    *_any_lead(
        "docker-token", "dckr_pat_ dckr_oat_", f"{_W}{{20,}}+", "docs.docker.com/security/access-tokens"
    ),
    # Clouds
    *(
        Shape(
            "aws-access-key",
            lead,
            f"[A-Z0-9]{{16}}{_ENDS}",
            _gitleaks("aws-access-token"),
            mark=lead + "[A-Z0-9]{16}",
        )
        for lead in ("AKIA", "ASIA")
    ),
    *(
        Shape(
            "aws-secret-key",
            lead,
            rf"{_ASSIGNED}([A-Za-z0-9/+]{{40}})(?![A-Za-z0-9/+=_-])",
            "docs.aws.amazon.com/IAM: access keys",
            mark=mark,
        )
        for lead, mark in (
            ("_secret_access_key", "_secret_access_key"),
            ("_SECRET_ACCESS_KEY", "_SECRET_ACCESS_KEY"),
            ("SecretAccessKey", "AccessKey(?<=SecretAccessKey)"),
            ("secretAccessKey", "AccessKey(?<=secretAccessKey)"),
        )
    ),
    Shape("google-api-key", "AIza", f"{_W}{{35}}{_ENDS}", _gitleaks("gcp-api-key"), mark=f"AIza{_W}{{35}}"),
    Shape("google-token", "ya29.", f"{_W}{{30,}}+", "developers.google.com/identity/protocols/oauth2"),
    Shape(
        "google-client-secret",
        "GOCSPX-",
        f"{_W}{{28}}{_ENDS}",
        "developers.google.com/identity/protocols/oauth2",
    ),
    Shape(
        "azure-storage-key",
        "AccountKey=",
        "([A-Za-z0-9+/]{86}==)",
        "learn.microsoft.com/azure/storage: connection strings",
        mark="AccountKey=[A-Za-z0-9+/]{86}",
    ),
    *_any_lead(
        "digitalocean-token",
        "dop_v1_ doo_v1_ dor_v1_",
        "[0-9a-f]{64}",
        _gitleaks("digitalocean-pat", "digitalocean-access-token", "digitalocean-refresh-token"),
    ),
    Shape("cloudflare-key", "v1.0-", "[0-9a-f]{24}-[0-9a-f]{146}", _gitleaks("cloudflare-origin-ca-key")),
    Shape(
        "databricks-token",
        "dapi",
        rf"[0-9a-f]{{32}}(?:-[0-9]{{1,2}})?{_ENDS}",
        _gitleaks("databricks-api-token"),
        mark="dapi[0-9a-f]{32}",
    ),
    *_any_lead("vault-token", "hvs. hvb. hvr.", f"{_W}{{24,}}+", _gitleaks("vault-service-token")),
    Shape("pulumi-token", "pul-", f"[0-9a-f]{{40}}{_ENDS}", _gitleaks("pulumi-api-token")),
    Shape("doppler-token", "dp.pt.", f"{_ALNUM}{{40,}}+{_ENDS}", _gitleaks("doppler-api-token")),
    Shape("supabase-token", "sbp_", f"[0-9a-f]{{40}}{_ENDS}", "supabase.com/docs/reference/api"),
    *_any_lead(
        "planetscale-token",
        "pscale_tkn_ pscale_pw_ pscale_oauth_",
        rf"{_DIGIT}[A-Za-z0-9_.=-]{{32,}}+",
        _gitleaks("planetscale-api-token", "planetscale-password"),
    ),
    *_any_lead(
        "tailscale-key",
        "tskey-auth- tskey-api- tskey-client-",
        f"{_DIGIT}{_W}{{20,}}+",
        "tailscale.com/kb/1277",
    ),
    # Money
    *_any_lead(
        "stripe-key",
        "sk_live_ rk_live_ sk_test_ rk_test_",
        f"{_DIGIT}{_ALNUM}{{16,}}+{_ENDS}",
        _gitleaks("stripe-access-token"),
    ),
    Shape("stripe-webhook-secret", "whsec_", f"{_DIGIT}[A-Za-z0-9+/=]{{24,}}+", "docs.stripe.com/webhooks"),
    *_any_lead(
        "shopify-token",
        "shpat_ shpca_ shppa_ shpss_",
        "[0-9A-Fa-f]{32}",
        _gitleaks("shopify-access-token", "shopify-shared-secret"),
    ),
    Shape("square-token", "sq0atp-", f"{_W}{{22}}{_ENDS}", _gitleaks("square-access-token")),
    # Messages
    Shape("slack-token", "xoxe.", f"xox[bp]-[0-9]-{_ALNUM}{{100,}}+", _gitleaks("slack-config-access-token")),
    *_any_lead(
        "slack-token",
        "xoxb- xoxp- xoxa- xoxr- xoxs- xoxe- xoxc- xoxd-",
        r"(?:[0-9]{8,14}-[A-Za-z0-9-]{8,}+|[0-9]-[A-Za-z0-9]{40,}+|[A-Za-z0-9%]{20,}+)",
        _gitleaks("slack-bot-token", "slack-user-token", "slack-legacy-token"),
    ),
    Shape(
        "slack-token",
        "xapp-",
        r"[0-9]-[A-Z0-9]{6,}+-[0-9]+-[a-z0-9]{20,}+",
        _gitleaks("slack-app-token"),
    ),
    Shape(
        "slack-webhook",
        "hooks.slack.com",
        rf"{_SLASH}(?:services|workflows|triggers){_SLASH}"
        rf"([A-Z0-9]{{8,14}}(?:{_SLASH}[A-Za-z0-9]{{8,46}}){{2,3}})",
        _gitleaks("slack-webhook-url"),
        mark=r"\.slack\.com(?:\\\\)?/(?:services|workflows|triggers)",
    ),
    Shape(
        "discord-webhook",
        "/api/webhooks/",
        rf"[0-9]{{17,20}}/({_W}{{60,}}+)",
        "discord.com/developers/docs/resources/webhook",
        mark="/api/webhooks/[0-9]{17}",
    ),
    Shape(
        "telegram-token",
        ":AA",
        rf"(?<=[0-9]{{8}}:AA)({_W}{{33}}){_ENDS}",
        _gitleaks("telegram-bot-api-token"),
        mark=f":AA{_W}{{33}}",
    ),
    Shape("sendgrid-key", "SG.", rf"{_W}{{20,24}}\.{_W}{{39,50}}", _gitleaks("sendgrid-api-token")),
    # Work
    *_any_lead("linear-key", "lin_api_ lin_oauth_", f"{_ALNUM}{{32,}}+", _gitleaks("linear-api-key")),
    Shape("notion-token", "ntn_", f"[0-9]{{8,}}+{_ALNUM}{{32,}}+{_ENDS}", _gitleaks("notion-api-token")),
    Shape(
        "atlassian-token",
        "ATATT3x",
        r"[A-Za-z0-9_=-]{100,}+",
        _gitleaks("atlassian-api-token"),
        mark="ATATT3x[A-Za-z0-9_=-]{100}",
    ),
    Shape("postman-key", "PMAK-", "[0-9a-f]{24}-[0-9a-f]{34}", _gitleaks("postman-api-token")),
    Shape("figma-token", "figd_", f"{_DIGIT}{_W}{{38,}}+", "figma.com/developers/api: access tokens"),
    Shape("newrelic-key", "NRAK-", f"[A-Z0-9]{{27}}{_ENDS}", _gitleaks("new-relic-user-api-key")),
    Shape(
        "grafana-token",
        "glsa_",
        f"{_ALNUM}{{32}}_[0-9A-Fa-f]{{8}}",
        _gitleaks("grafana-service-account-token"),
    ),
    Shape("grafana-token", "glc_", "eyJ[A-Za-z0-9+/]{32,}+={0,2}", _gitleaks("grafana-cloud-api-token")),
    Shape("sentry-token", "sntryu_", "[0-9a-f]{64}", _gitleaks("sentry-user-token")),
    Shape("sentry-token", "sntrys_", r"eyJ[A-Za-z0-9+/=_-]{60,}+", _gitleaks("sentry-org-token")),
    # This server
    *_any_lead("rpcshare-key", "rsk_", f"{_DIGIT}{_W}{{20,}}+", "PROTOCOL.md"),
    *_any_lead(
        "rpcshare-view-token", "rsv_", r"eyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]{8,}+){2}", "PROTOCOL.md"
    ),
    # Of no one provider
    Shape(
        "jwt",
        "eyJ",
        rf"{_W}{{8,}}+\.eyJ{_W}{{8,}}+\.{_W}{{16,}}+",
        "RFC 7519; " + _gitleaks("jwt"),
        mark=rf"\.eyJ{_W}{{8,}}+\.",
    ),
    Shape("age-key", "AGE-SECRET-KEY-", "1[A-Z0-9]{58}", _gitleaks("age-secret-key")),
    # Long, and with capitals, small letters and digits: "user:password@host" stands in many a manual.
    Shape(
        "url-password",
        "://",
        _URL_AUTHORITY,
        "RFC 3986, section 3.2.1",
        mark='://[^\\s"\\\\/@:?#]{0,64}+:[^\\s"\\\\/@]{16}',
    ),
)

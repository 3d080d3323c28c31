"""Signing in with GitHub from the button to the page, and every way in which it can fail."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from people.github_peer import CLIENT_SECRET, Failure, GitHubPeer, hangs, is_cut_off
from people.oidc_peer import browser, close_browsers, configured, told
from support.running_server import RunningServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def github() -> Iterator[GitHubPeer]:
    with GitHubPeer() as github:
        yield github


def table(github: GitHubPeer, **more: str) -> str:
    lines = [
        "[oidc.github]",
        'preset = "github"',
        f'issuer = "{github.url}"',
        'client_id = "Iv1.test"',
        f'client_secret = "{CLIENT_SECRET}"',
        *(f"{name} = {value}" for name, value in more.items()),
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def server(github: GitHubPeer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    text = table(
        github,
        allowed_groups='["acme", "globex/admins"]',
        organization='"acme"',
        role_map='{ "acme/operators" = "admin" }',
    )
    with RunningServer(folder / "data", configured(folder, text)) as server:
        yield server


@pytest.fixture(autouse=True)
def _well(github: GitHubPeer) -> Iterator[None]:
    github.reset()
    yield
    close_browsers()


def sign_in(server: RunningServer) -> tuple[httpx.Client, httpx.Response]:
    client = browser(server)
    return client, client.get("/auth/github/login")


def is_signed_in(client: httpx.Client) -> bool:
    return client.get("/api/my-sessions").status_code == 200


def test_who_signs_in_is_a_user_with_the_role_of_the_team(server: RunningServer, github: GitHubPeer) -> None:
    client, page = sign_in(server)
    assert page.status_code == 200
    profile = told(client.get("/profile"))
    for shown in ("Alice Example", "alice@acme.example", "acme", "admin"):
        assert shown in profile
    asked = dict(github.asked)
    assert asked["/login/oauth/authorize"]["scope"] == "read:user user:email read:org"
    assert asked["/login/oauth/authorize"]["code_challenge_method"] == "S256"
    assert CLIENT_SECRET not in str(asked["/login/oauth/authorize"])
    assert asked["/login/oauth/access_token"]["redirect_uri"] == f"{server.url}/auth/github/callback"


def test_the_number_counts_and_not_the_login(server: RunningServer, github: GitHubPeer) -> None:
    first, _ = sign_in(server)
    github.user = {**github.user, "login": "alice-renamed"}
    again, _ = sign_in(server)
    github.user = {"id": 18, "login": "alice", "name": None}  # who has taken the login
    github.emails = [{"email": "other@acme.example", "primary": True, "verified": True}]
    other, _ = sign_in(server)
    ids = [told(each.get("/profile")).partition("Id ")[2].split()[0] for each in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]


def test_an_address_that_is_not_verified_links_to_nobody(server: RunningServer, github: GitHubPeer) -> None:
    first, _ = sign_in(server)
    github.user = {"id": 99, "login": "mallory"}
    github.emails = [{"email": "alice@acme.example", "primary": True, "verified": False}]
    other, page = sign_in(server)
    assert page.status_code == 200
    assert told(first.get("/profile")) != told(other.get("/profile"))


def test_who_is_in_no_group_is_not_let_in(server: RunningServer, github: GitHubPeer) -> None:
    github.organizations, github.teams = [{"login": "Acme-Fake"}], []
    client, page = sign_in(server)
    assert "is in no group that may sign in here" in told(page)
    assert not is_signed_in(client)


def test_a_team_of_another_organization_with_the_same_name_gives_no_role(
    server: RunningServer, github: GitHubPeer
) -> None:
    github.teams = [{"slug": "operators", "organization": {"login": "elsewhere"}}, {"slug": "acme/operators"}]
    client, _ = sign_in(server)
    assert "Role member" in told(client.get("/profile"))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("access_denied", "You have not signed in at GitHub"),
        ("application_suspended", "GitHub has not signed you in, and says: application_suspended."),
        ("redirect_uri_mismatch", "GitHub has not signed you in, and says: redirect_uri_mismatch."),
        ("<script>", "GitHub has not signed you in, and says: an error."),
    ],
)
def test_what_github_sends_back_in_place_of_a_code_is_told(
    server: RunningServer, github: GitHubPeer, error: str, sentence: str
) -> None:
    github.denied = error
    client, page = sign_in(server)
    assert sentence in told(page)
    assert "<script>" not in page.text.partition("<main")[2].partition("</main>")[0]
    assert not is_signed_in(client)


UNREACHABLE = "GitHub cannot be reached at the moment. Please try again in a few seconds."
REFUSES = "GitHub refuses this server. Whoever runs it finds the reason in its log."
USED = "GitHub does not take the code: it is used, or too old. Please sign in again."
TOKEN, USER = "/login/oauth/access_token", "/api/v3/user"
EMAILS, ORGANIZATIONS, TEAMS = "/api/v3/user/emails", "/api/v3/user/orgs", "/api/v3/user/teams"

FAILURES: list[tuple[str, Failure, str]] = [
    (TOKEN, (200, {"error": "bad_verification_code"}), USED),
    (TOKEN, (200, {"error": "incorrect_client_credentials"}), REFUSES),
    (TOKEN, (200, {"error": "redirect_uri_mismatch"}), REFUSES),
    (TOKEN, (200, {"error": ["x"]}), REFUSES),
    (TOKEN, (200, {"access_token": ""}), "GitHub sent no access token. Nobody was signed in."),
    (TOKEN, (200, {"access_token": 7}), "GitHub sent no access token. Nobody was signed in."),
    (TOKEN, (200, {"access_token": "two\r\nlines: x"}), "GitHub sent no access token. Nobody was signed in."),
    (TOKEN, (200, {"access_token": "x" * 100_000}), "GitHub sent no access token. Nobody was signed in."),
    (TOKEN, (200, "access_token=gho_x&scope="), UNREACHABLE),
    (TOKEN, (200, "x" * 300_000), UNREACHABLE),
    (TOKEN, (404, {"error": "Not Found"}), REFUSES),
    (TOKEN, (500, "<html>"), UNREACHABLE),
    (TOKEN, is_cut_off, UNREACHABLE),
    (USER, (401, {"message": "Bad credentials"}), UNREACHABLE),
    (USER, (403, {"message": "API rate limit exceeded"}), UNREACHABLE),
    (USER, (200, []), UNREACHABLE),
    (USER, (200, {"login": "alice"}), "GitHub sent no user. Nobody was signed in."),
    (USER, (200, {"id": "17", "login": "alice"}), "GitHub sent no user. Nobody was signed in."),
    (USER, (200, {"id": True, "login": "alice"}), "GitHub sent no user. Nobody was signed in."),
    (USER, is_cut_off, UNREACHABLE),
    (EMAILS, (404, {"message": "Not Found"}), UNREACHABLE),
    (EMAILS, (503, "unavailable"), UNREACHABLE),
    (EMAILS, (200, {"email": "x"}), UNREACHABLE),
    (EMAILS, (403, []), UNREACHABLE),
    (ORGANIZATIONS, (403, {"message": "Resource protected by organization SAML enforcement"}), UNREACHABLE),
    (ORGANIZATIONS, (500, [{"login": "acme"}]), UNREACHABLE),
    (ORGANIZATIONS, is_cut_off, UNREACHABLE),
    (TEAMS, (404, {"message": "Not Found"}), UNREACHABLE),
]


@pytest.mark.parametrize(("path", "failure", "sentence"), FAILURES, ids=range(len(FAILURES)))
def test_a_step_that_fails_signs_nobody_in_and_is_told_in_a_sentence(
    server: RunningServer, github: GitHubPeer, path: str, failure: Failure, sentence: str
) -> None:
    github.fails[path] = failure
    client, page = sign_in(server)
    assert sentence in told(page)
    assert page.status_code in (403, 502)
    assert not is_signed_in(client)
    log = server.log.read_text()
    assert CLIENT_SECRET not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("path", [TOKEN, USER])
def test_one_that_answers_for_ever_is_given_up(server: RunningServer, github: GitHubPeer, path: str) -> None:
    github.fails[path] = hangs
    _, page = sign_in(server)
    assert UNREACHABLE in told(page)


@pytest.mark.parametrize(
    "emails",
    [[], [None, 7], [{"email": 7, "primary": True}], [{"primary": True}], [{"email": "a@b.example"}]],
)
def test_without_a_usable_address_the_user_has_none(
    server: RunningServer, github: GitHubPeer, emails: object
) -> None:
    github.user, github.emails = {"id": 1000, "login": "no-address"}, emails
    client, page = sign_in(server)
    assert page.status_code == 200
    assert is_signed_in(client)


def test_a_code_is_good_for_the_browser_that_began_and_once(
    server: RunningServer, github: GitHubPeer
) -> None:
    client = browser(server)
    begun = client.get("/auth/github/login", follow_redirects=False)
    back = client.get(begun.headers["location"], follow_redirects=False).headers["location"]
    assert parse_qs(urlsplit(back).query)["code"]
    stranger = browser(server)
    assert "has not begun to sign in here" in told(stranger.get(back))
    assert client.get(back).status_code == 200
    assert "has not begun to sign in here" in told(client.get(back))


def test_with_domains_the_primary_address_decides(github: GitHubPeer, tmp_path: Path) -> None:
    text = table(github, allowed_domains='["acme.example"]')
    with RunningServer(tmp_path / "data", configured(tmp_path, text)) as server:
        assert is_signed_in(sign_in(server)[0])
        github.emails = [
            {"email": "alice@acme.example", "primary": False, "verified": True},
            {"email": "alice@elsewhere.example", "primary": True, "verified": True},
        ]
        client, page = sign_in(server)
        assert "belongs to no organization that may sign in here" in told(page)
        assert not is_signed_in(client)
        close_browsers()

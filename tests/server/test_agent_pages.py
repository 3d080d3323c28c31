"""The pages of agents: their list, what steers one, and the links that answer one thing, without a script."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from support.scripted_agents import ScriptedAgents

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedAgents]:
    path = tmp_path_factory.mktemp("agents") / "data"
    with ScriptedAgents(path, "--agents=local", "--agents-unsafe", "--access-log") as running:
        yield running


@pytest.fixture
def browser(server: ScriptedAgents) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.token}", "Origin": server.url}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def phone(server: ScriptedAgents) -> Iterator[httpx.Client]:
    """Somebody who has not signed in."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def workspace(server: ScriptedAgents) -> str:
    headers = {"Authorization": f"Bearer {server.token}"}
    made = httpx.post(f"{server.url}/api/workspaces", json={"name": "site"}, headers=headers, timeout=60)
    found: str = made.json()["id"]
    return found


class Started:
    """An agent, as its page knows it."""

    def __init__(self, browser: httpx.Client, location: str) -> None:
        self._browser = browser
        self.share = location.split("?", maxsplit=1)[0].rpartition("/")[2]
        page = browser.get(f"/share/{self.share}").text
        found = re.search(r'data-panel="[^"]*agents/(ses_\w+)/panel"', page)
        assert found is not None, page
        self.id = found[1]

    def panel(self) -> str:
        return self._browser.get(f"/agents/{self.id}/panel").text

    def post(self, path: str, **fields: str) -> httpx.Response:
        return self._browser.post(f"/agents/{self.id}/{path}", data=fields)

    def send(
        self, content: str, files: Sequence[tuple[str, tuple[str, bytes, str]]] = (), **fields: str
    ) -> httpx.Response:
        parts = [(name, (None, value)) for name, value in {"content": content, **fields}.items()]
        return self._browser.post(f"/agents/{self.id}/send", files=[*parts, *files])

    def until(self, holds: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + 30
        while not holds(panel := self.panel()):
            assert time.monotonic() < deadline, panel
            time.sleep(0.02)
        return panel

    def status(self, wanted: str) -> str:
        return self.until(lambda panel: f'data-status="{wanted}"' in panel)

    def request(self) -> str:
        found = re.search(r'id="r-((?:per|que)_\w+)"', self.status("blocked"))
        assert found is not None
        return found[1]

    def link(self) -> str:
        page = self.post(f"requests/{self.request()}/link").text
        found = re.search(r"/approve/[\w-]+", page)
        assert found is not None, page
        return found[0]


@pytest.fixture
def start(browser: httpx.Client, workspace: str) -> Callable[..., Started]:
    def started(prompt: str, **fields: str) -> Started:
        answer = browser.post("/agents", data={"workspace": workspace, "prompt": prompt, **fields})
        assert answer.status_code == 303, answer.text
        return Started(browser, answer.headers["location"])

    return started


def test_a_form_starts_an_agent_whose_share_has_what_steers_it(browser, start):
    agent = start("hello", title="By a <form>", dollars="2", permission="ask")
    agent.status("idle")
    page = browser.get(f"/share/{agent.share}?end=1").text
    assert "By a &lt;form&gt;" in page
    assert "It is done." in page
    assert "$0.0100 of $2.00" in page
    assert page.count('id="composer"') == 1
    listed = browser.get("/agents").text
    assert "By a &lt;form&gt;" in listed
    assert agent.share in browser.get("/agents?status=idle").text
    assert agent.share not in browser.get("/agents?status=failed").text
    assert browser.get(f"/agents/{agent.id}").headers["location"] == f"../share/{agent.share}?end=1#agent"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": "none/such"}, "model"),
        ({"agent": "no good"}, "agent"),
        ({"dollars": "much"}, "dollars"),
        ({"turns": "-1"}, "turns"),
        ({"permission": "other"}, "permission"),
    ],
)
def test_what_is_wrong_stands_beside_its_field(browser, workspace, fields, field):
    answer = browser.post("/agents", data={"workspace": workspace, "prompt": "kept <b>", **fields})
    assert answer.status_code == 400
    assert f'id="wrong-{field}"' in answer.text
    assert "kept &lt;b&gt;" in answer.text


def test_others_see_the_transcript_and_nothing_that_steers(phone, start):
    agent = start("hello there")
    agent.status("idle")
    page = phone.get(f"/share/{agent.share}")
    assert page.status_code == 200
    assert "hello there" in page.text
    assert 'id="agent"' not in page.text
    for path in ("panel", "live", "diff", ""):
        assert phone.get(f"/agents/{agent.id}/{path}".rstrip("/")).status_code == 401
    own = {"Origin": str(phone.base_url).rstrip("/")}
    for path in ("send", "control", "unqueue", "requests/per_1", "requests/per_1/link"):
        assert phone.post(f"/agents/{agent.id}/{path}", headers=own, data={"do": "abort"}).status_code == 401


def test_another_sites_form_steers_nothing(browser, start):
    agent = start("run ls")
    request = agent.request()
    foreign = {"Origin": "https://other.example"}
    for path in ("send", "control", "unqueue", f"requests/{request}", f"requests/{request}/link"):
        answer = browser.post(
            f"/agents/{agent.id}/{path}", data={"answer": "once", "do": "abort"}, headers=foreign
        )
        assert answer.status_code == 403
    assert browser.post("/agents", data={"prompt": "x"}, headers=foreign).status_code == 403
    assert agent.request() == request


@pytest.mark.parametrize("answer", ["once", "always", "reject"])
def test_an_approval_is_answered_by_its_card(browser, start, answer):
    agent = start("run make <b>all</b>")
    request = agent.request()
    assert "make &lt;b&gt;all&lt;/b&gt;" in agent.panel()
    answered = agent.post(f"requests/{request}", answer=answer, note="because")
    assert answered.headers["location"] == f"../../../share/{agent.share}?end=1&notice=answered#agent"
    agent.status("idle")
    assert f"&#39;reply&#39;: &#39;{answer}&#39;" in browser.get(f"/share/{agent.share}").text
    again = agent.post(f"requests/{request}", answer=answer)
    assert again.status_code == 400
    assert "answered already" in again.text


def test_an_edit_shows_its_diff_and_a_command_all_of_itself(start):
    panel = start("edit <i>new</i>").until(lambda panel: "per_" in panel)
    assert "&lt;i&gt;new&lt;/i&gt;" in panel
    assert 'class="removed"' in panel
    hidden = "x" * 20_000 + "; rm -rf /"
    assert "; rm -rf /" in start(f"run echo {hidden}").until(lambda panel: "per_" in panel)
    # What a terminal or a page would not show is there, too.
    unseen = "run rm\u200b -rf\u3164x\u2060y\u00a0z\U000e0100\u202e"
    panel = re.sub(r"</?span[^>]*>", "", start(unseen).until(lambda panel: "per_" in panel))
    assert "rm[U+200B] -rf[U+3164]x[U+2060]y[U+00A0]z[U+E0100][U+202E]" in panel
    shown = start("run rm -rf /\rls\x1b[2K").until(lambda panel: "per_" in panel)
    assert "rm -rf /" in shown
    assert "\u240dls\u241b" in re.sub(r"</?span[^>]*>", "", shown)


def test_questions_take_options_and_words_of_ones_own(browser, start):
    agent = start("question")
    request = agent.request()
    assert agent.post(f"requests/{request}", answer="answer").status_code == 400
    form = {"answer": "answer", "q0": "1", "q1": ["0", "1"], "t2": "two\r\nlines"}
    assert browser.post(f"/agents/{agent.id}/requests/{request}", data=form).status_code == 303
    agent.status("idle")
    said = browser.get(f"/share/{agent.share}").text
    assert "[[&#39;PostgreSQL&#39;], [&#39;Pages&#39;, &#39;API&#39;], [&#39;two\\nlines&#39;]]" in said


def test_messages_wait_are_taken_out_and_are_sent_once_however_often_a_button_is_pressed(start):
    agent = start("wait")
    agent.status("running")
    for _ in range(3):
        assert agent.send("later", nonce="same").status_code == 303
    agent.send("steered", nonce="other", delivery="steer")
    panel = agent.panel()
    assert panel.count(">later</span>") == 1
    assert "steers" in panel
    message = re.search(r'name="message" value="(msg_\w+)"', panel)
    assert message is not None
    assert "unqueued" in agent.post("unqueue", message=message[1]).headers["location"]
    assert ">later</span>" not in agent.panel()
    assert agent.post("unqueue", message="msg_none").headers["location"].endswith("notice=started#agent")


def test_a_hundred_messages_that_wait_are_shown_as_some_and_a_number(start):
    agent = start("wait")
    agent.status("running")
    for number in range(100):
        assert agent.send(f"{number} " + "long " * 1000, nonce=str(number)).status_code == 303
    assert agent.send("one more", nonce="more").status_code == 429
    panel = agent.panel()
    assert "And 76 more." in panel
    assert len(panel) < 40_000


def test_files_are_attached_by_name_and_kind(start):
    agent = start("wait")
    agent.status("running")
    files = [
        ("files", ("../../a b.py", b"print('x')\n", "text/x-python")),
        ("files", ("<b>.png", b"\x89PNG\r\n\x1a\n\0", "image/png")),
        ("files", ("", b"", "application/octet-stream")),
    ]
    assert agent.send("look", files, nonce="1").status_code == 303
    panel = agent.panel()
    assert "a b.py" in panel
    assert "../" not in re.findall(r'class="badge">([^<]*)<', panel)[0]
    assert "<b>" not in panel
    many = [("files", (f"{number}.txt", b"x", "text/plain")) for number in range(17)]
    assert agent.send("too many", many).status_code == 400
    large = [("files", ("a.bin", bytes(13 * 2**20), "application/octet-stream"))]
    assert agent.send("too large", large).status_code == 413
    assert agent.send("", nonce="2").status_code == 400


def test_an_agent_is_stopped_paused_resumed_and_ended(browser, start):
    agent = start("wait")
    agent.status("running")
    assert "notice=abort" in agent.post("control", do="abort").headers["location"]
    agent.status("idle")
    agent.post("control", do="pause")
    agent.send("hello", nonce="1")
    assert ">hello</span>" in agent.status("paused")
    agent.post("control", do="budget", turns="5")
    assert "1 of 5" in agent.status("idle")
    assert agent.post("control", do="budget", turns="x").status_code == 400
    assert agent.post("control", do="anything").status_code == 400
    agent.post("control", do="terminate")
    assert 'id="composer"' not in agent.status("terminated")
    assert agent.send("hello", nonce="2").status_code == 410


def test_a_budget_that_is_spent_pauses_and_a_larger_one_goes_on(start):
    agent = start("hello", turns="1")
    assert "1 of 1" in agent.status("paused")
    assert agent.post("control", do="resume").status_code == 400
    agent.post("control", do="budget", turns="3")
    agent.status("idle")


def test_a_diff_is_text(browser, start):
    agent = start("hello")
    agent.status("idle")
    page = browser.get(f"/agents/{agent.id}/diff").text
    assert "&lt;/script&gt;&lt;b&gt;changed&lt;/b&gt;" in page


def test_a_stream_tells_of_each_change_and_ends_when_the_server_stops(server, browser, start):
    agent = start("wait")
    agent.status("running")
    heard: list[str] = []
    with browser.stream("GET", f"/agents/{agent.id}/live") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        heard += [next(lines) for _ in range(4)]
        threading.Timer(0.05, lambda: agent.post("control", do="abort")).start()
        heard.append(next(line for line in lines if line.startswith("data:")))
    numbers = [int(line.removeprefix("data: ")) for line in heard if line.startswith("data:")]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 2


# Links


def test_a_link_answers_one_approval_once_without_signing_in(server, browser, phone, start):
    agent = start("run make")
    link = agent.link()
    page = phone.get(link)
    assert page.status_code == 200
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert "make" in page.text
    assert "site" in page.text
    # What fetches links before people open them answers nothing.
    assert phone.head(link).status_code == 200
    assert "per_" in agent.panel()
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert phone.post(link, data={"answer": "always"}, headers=own).status_code == 400
    assert "per_" in agent.panel()
    done = phone.post(link, data={"answer": "once"}, headers=own)
    assert (done.status_code, "It is allowed, once." in done.text) == (200, True)
    agent.status("idle")
    for again in (phone.get(link), phone.post(link, data={"answer": "reject"}, headers=own)):
        assert again.status_code == 410
        assert "It has been answered" in again.text
        assert "make" not in again.text
    assert "&#39;reply&#39;: &#39;once&#39;" in browser.get(f"/share/{agent.share}").text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 200),  # as browsers do with no-referrer
        ({"Origin": "null"}, 200),  # and over plain HTTP, on a phone in the same network
        ({}, 200),
        ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://other.example"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
    ],
)
def test_a_link_is_answered_from_its_own_page(phone, start, headers, status):
    agent = start("run make")
    assert phone.post(agent.link(), data={"answer": "once"}, headers=headers).status_code == status


def test_a_link_answers_a_question(server, phone, browser, start):
    agent = start("question")
    link = agent.link()
    own = {"Origin": server.url}
    assert phone.post(link, data={"answer": "answer"}, headers=own).status_code == 400
    assert phone.post(link, data={"answer": "answer", "q0": "0"}, headers=own).status_code == 200
    agent.status("idle")
    assert "[[&#39;SQLite&#39;], [], []]" in browser.get(f"/share/{agent.share}").text


def test_a_link_whose_turn_has_ended_says_so_and_no_more(phone, start):
    agent = start("run make secretly")
    link = agent.link()
    agent.post("control", do="abort")
    answer = phone.get(link)
    assert answer.status_code == 410
    assert "secretly" not in answer.text
    assert phone.get("/approve/" + "x" * 32).status_code == 404
    assert phone.get("/approve/x").status_code == 404
    assert phone.post("/approve/" + "x" * 32, data={"answer": "once"}).status_code == 404


def test_no_log_or_metric_has_the_token_of_a_link(server, phone, browser, start):
    link = start("run make").link()
    phone.get(link)
    phone.post(link, data={"answer": "once"}, headers={"Origin": server.url})
    token = link.rpartition("/")[2]
    assert "/approve/{token}" in server.log.read_text()
    assert token not in server.log.read_text()
    assert token not in browser.get("/metrics").text
    kept = [each for each in Path(server.data_dir).rglob("*") if each.is_file()]
    assert [each.name for each in kept if token.encode() in each.read_bytes()] == []


def test_guessing_links_is_made_slow(tmp_path):
    env = {"RPCSHARE_MAX_FAILED_AUTHENTICATIONS": "5"}
    with ScriptedAgents(tmp_path / "data", "--agents=local", "--agents-unsafe", env=env) as server:
        answers = [httpx.get(f"{server.url}/approve/{number:032}").status_code for number in range(7)]
        assert answers == [404] * 5 + [429] * 2

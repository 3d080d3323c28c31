"""``rpcshare agent``: what it prints, and with which status it ends."""

import json
import os
import pty
import select
import signal
import subprocess
import sys

import pytest

from support.scripted_agents import ScriptedAgents

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    options = ("--agents=local", "--agents-unsafe", "--max-workspaces=1000")
    with ScriptedAgents(tmp_path_factory.mktemp("agents") / "data", *options) as running:
        yield running


def run(server, *arguments, given=None):
    environment = {**os.environ, "RPCSHARE_URL": server.url, "RPCSHARE_TOKEN": server.token}
    command = [sys.executable, "-m", "rpcshare", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, input=given, timeout=100
    )


@pytest.fixture(scope="module")
def site(server):
    assert run(server, "workspace", "create", "site").returncode == 0
    return "site"


def started(server, *prompt):
    return json.loads(run(server, "agent", "start", "-w", "site", "--json", *prompt).stdout)["id"]


def test_a_turn_is_followed_to_its_end(server, site):
    done = run(server, "agent", "start", "-w", site, "--watch", "hello", "there")
    assert (done.returncode, done.stdout) == (0, "It is done.\n")
    allowed = run(server, "agent", "start", "-w", site, "--watch", "--yes", "run ls")
    assert (allowed.returncode, allowed.stdout) == (0, "Answered: {'reply': 'once'}\n")
    failed = run(server, "agent", "start", "-w", site, "--watch", "fail")
    assert (failed.returncode, "failed: the script says so" in failed.stderr) == (1, True)


def test_a_turn_that_ends_by_an_error_is_a_failure_that_says_why(server, site):
    failed = run(server, "agent", "start", "-w", site, "--watch", "err")
    assert (failed.returncode, "the turn has ended: error: the script says no" in failed.stderr) == (1, True)
    later = run(server, "agent", "watch", "-", "--until-idle")
    assert (later.returncode, later.stderr.count("the script says no")) == (1, 1)
    again = run(server, "agent", "send", "-", "--watch", "hello")
    assert again.returncode == 0
    assert run(server, "agent", "watch", "-", "--until-idle").returncode == 0


def test_the_list_of_commands_has_whole_sentences(server):
    shown = run(server, "agent", "--help").stdout
    for line in ("abort      End the turn under way.", "pause      Begin no further turn.",
                 "stop       End an agent for good."):  # fmt: skip
        assert line in shown


def test_a_question_wants_an_answer_for_each(server, site):
    session = started(server, "question")
    for _ in range(100):
        if json.loads(run(server, "agent", "approvals", session, "--json").stdout):
            break
    assert run(server, "agent", "approve", session).returncode == 2
    answers = ("--answer", "SQLite", "--answer", "Pages", "--answer", "demo")
    assert run(server, "agent", "approve", session, *answers[:2]).returncode == 2
    assert run(server, "agent", "approve", session, *answers).returncode == 0
    assert run(server, "agent", "watch", session, "--until-idle").returncode == 0


def test_approvals_are_named_where_there_are_several(server, site):
    session = started(server, "run ls")
    for _ in range(100):
        if json.loads(run(server, "agent", "approvals", session, "--json").stdout):
            break
    assert "/approve/" in run(server, "agent", "approve", session, "--link").stdout
    assert run(server, "agent", "approve", session, "--always", "--reject").returncode == 2
    assert run(server, "agent", "approve", session, "per_0").returncode == 5
    assert run(server, "agent", "approve", session, "--reject", "--note", "no").returncode == 0
    assert run(server, "agent", "approve", session).returncode == 5


def test_the_queue_waits_while_it_is_paused(server, site):
    session = started(server)
    assert run(server, "agent", "pause", session).stdout.endswith("paused\n")
    message = run(server, "agent", "send", session, "-", given="from a pipe\n").stdout.strip()
    assert "from a pipe" in run(server, "agent", "queue", session).stdout
    assert run(server, "agent", "queue", session, "--remove", message).returncode == 0
    assert run(server, "agent", "queue", session, "--remove", message).returncode == 5
    assert run(server, "agent", "resume", session, "--budget", "2USD", "--budget", "5turns").returncode == 0
    assert "budget: 2 dollars, 5 turns" in run(server, "agent", "show", session).stdout
    assert "+    print" in run(server, "agent", "diff", session).stdout
    assert run(server, "agent", "stop", session).stdout.endswith("terminated\n")
    refused = run(server, "agent", "send", session, "more")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert session in run(server, "agent", "ls", "--status", "terminated").stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("show", "ses_0"), 5),
        (("start", "-w", "nosuch", "x"), 5),
        (("start", "-w", "site", "--budget", "2EUR", "x"), 2),
        (("start", "-w", "site", "--permission", "bash", "x"), 2),
        (("start", "-w", "site", "--model", "none/none", "x"), 2),
        (("start", "-w", "site", "--watch"), 2),
        (("watch", "ses_0"), 5),
        (("ls", "--status", "asleep"), 2),
    ],
)
def test_what_makes_no_sense_is_one_line_and_a_status(server, site, arguments, status):
    refused = run(server, "agent", *arguments)
    assert (refused.returncode, refused.stderr.count("\n")) == (status, 1), refused.stderr
    assert "Traceback" not in refused.stderr


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, server, *arguments):
        environment = {**os.environ, "RPCSHARE_URL": server.url, "RPCSHARE_TOKEN": server.token}
        self._here, there = pty.openpty()
        command = [sys.executable, "-m", "rpcshare", "agent", *arguments]
        self._process = subprocess.Popen(
            command, stdin=there, stdout=there, stderr=there, env=environment, start_new_session=True
        )
        os.close(there)
        self.shown = ""

    def until(self, text):
        """Read what it shows up to ``text``."""
        while text not in self.shown:
            ready, _, _ = select.select([self._here], [], [], 60)
            assert ready, self.shown
            try:
                self.shown += os.read(self._here, 4096).decode()
            except OSError:
                raise AssertionError(self.shown) from None

    def type(self, text):
        os.write(self._here, text.encode())

    def interrupt(self):
        self._process.send_signal(signal.SIGINT)

    def wait(self):
        return self._process.wait(60)


def test_who_sits_at_the_terminal_is_asked(server, site):
    terminal = Terminal(server, "start", "-w", site, "--watch", "run ls")
    terminal.until("[n]o")
    terminal.type("what?\n")
    terminal.type("y\n")
    terminal.until("Answered: {'reply': 'once'}")
    assert terminal.wait() == 0
    questions = Terminal(server, "start", "-w", site, "--watch", "question")
    for text, answer in (("Which database?", "1\n"), ("Which parts?", "API\n"), ("called?", "demo\n")):
        questions.until(text)
        questions.type(answer)
    questions.until("[['SQLite'], ['API'], ['demo']]")
    assert questions.wait() == 0


def test_what_is_answered_elsewhere_is_asked_no_longer(server, site):
    terminal = Terminal(server, "start", "-w", site, "--watch", "run ls")
    terminal.until("[n]o")
    assert run(server, "agent", "approve", "-", "--reject").returncode == 0
    terminal.until("Answered: {'reply': 'reject'}")
    assert terminal.wait() == 0


def test_the_first_interrupt_ends_the_turn_and_the_second_the_command(server, site):
    session = started(server, "wait")
    terminal = Terminal(server, "watch", session)
    terminal.until("following")
    terminal.interrupt()
    terminal.until("once more to leave")
    terminal.until("the turn has ended: aborted")
    terminal.interrupt()
    assert terminal.wait() == 130

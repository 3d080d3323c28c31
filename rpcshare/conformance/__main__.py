"""``python -m rpcshare.conformance``: run the cases against a server, or be a server to run them against."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from rpcshare import jsontext
from rpcshare.conformance.cases import load_cases
from rpcshare.conformance.runner import Outcome, run_cases
from rpcshare.conformance.serving import serving


def main(arguments: list[str] | None = None) -> int:
    """Carry out one command line, and return the exit status: 0, 1 for a failure, 2 for a misuse."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "serve":
            return asyncio.run(_serve(options.port))
        return asyncio.run(_run(options))
    except OSError as exc:
        sys.stderr.write(f"rpcshare.conformance: {exc}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rpcshare.conformance", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve the target on 127.0.0.1, without authentication")
    serve.add_argument("--port", type=int, default=0, help="0, the default: any that is free")
    run = commands.add_parser("run", help="run the cases against a server of the target")
    run.add_argument("url", metavar="URL", help="ws: for sessions over WebSocket, http: for HTTP batches")
    run.add_argument("--filter", default="", help="only cases with this in their id or the rules they check")
    run.add_argument("--json", action="store_true", help="print one JSON object for each case")
    run.add_argument("--messagepack", action="store_true", help="speak MessagePack over the WebSocket")
    run.add_argument("--timeout", type=float, default=5.0, help="how many seconds a case may take (5)")
    return parser


async def _serve(port: int) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with serving(port) as url:
        _print(f"the conformance target is at {url}")
        await stopped.wait()
    return 0


async def _run(options: argparse.Namespace) -> int:
    cases = [case for case in load_cases() if case.is_about(options.filter)]
    failed = ran = 0
    async for outcome in run_cases(
        options.url, cases, time_limit=options.timeout, messagepack=options.messagepack
    ):
        ran += 1
        failed += not outcome.passed
        _print(jsontext.encode(outcome.report()).decode() if options.json else _line(outcome))
    if not options.json:
        _print(f"{ran - failed} of {ran} cases passed")
    if ran == 0:
        sys.stderr.write("rpcshare.conformance: no case is about that, or runs over that kind of URL\n")
        return 2
    return 1 if failed else 0


def _line(outcome: Outcome) -> str:
    case = outcome.case
    line = f"{'ok  ' if outcome.passed else 'FAIL'} {case.id}  {case.title} [{', '.join(case.checks)}]"
    if outcome.failure is None:
        return line
    return "\n      ".join([line, *outcome.failure.lines()])


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""Run the benchmarks and print what they measured: ``python -m tests.bench [--quick] [--only PART]``."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import (
    against_npm,
    agent_turns,
    clients,
    floor,
    growth,
    indexing,
    listings,
    people,
    report,
    scale,
    searching,
    starting,
    writes,
)
from bench.figures import Figure

LONG = (
    "listings",
    "searching",
    "indexing",
    "people",
    "agents",
)  # which --quick leaves out, unless asked for: minutes
RESULTS = Path(__file__).parents[2] / ".bench"


def figures(*, quick: bool, only: str) -> Iterator[Figure]:
    yield from against_npm.run(quick=quick, only=only)
    if only in ("", "client"):
        yield from clients.run(quick=quick)
    names = [measure.__name__ for measure in scale.PARTS]
    if (not only and not quick) or only in ("scale", *names):
        yield from scale.run(quick=quick, only=only)
    parts = {
        "starting": starting,
        "listings": listings,
        "searching": searching,
        "indexing": indexing,
        "people": people,
        "agents": agent_turns,
    }
    for name, part in parts.items():
        if only == name or (not only and not (quick and name in LONG)):
            yield from part.run(quick=quick)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="in under a minute; the figures vary more")
    parser.add_argument(
        "--only",
        default="",
        metavar="PART",
        help="what has this in its name; or: client, starting, listings, searching, indexing, people, "
        + "agents, floor, scale, "
        + ", ".join(measure.__name__ for measure in scale.PARTS),
    )
    options = parser.parse_args()

    machine = report.machine()
    title = "{cpu}, {cores} cores, load {load:.1f}; Python {python}, Node {node}".format_map(machine)
    print(title, report.HEADER, sep="\n")
    measured = []
    for figure in figures(quick=options.quick, only=options.only):
        measured.append(figure)
        print(report.row(figure), flush=True)
    counted: dict[str, float] = {}
    if not (options.quick or options.only):
        counted = growth.run() | writes.run()
    if options.only == "floor" or not (options.quick or options.only):
        counted |= floor.run()
    if counted:
        print()
        for name, value in counted.items():
            print(f"{name:100} {value:8.3f}")
    if options.only:
        return  # what is kept is whole
    RESULTS.mkdir(exist_ok=True)
    name = "quick" if options.quick else "full"
    report.write_json(RESULTS / f"{name}.json", machine, measured, counted)
    report.picture(RESULTS / f"{name}.png", title, measured)
    print(f"\n{RESULTS / name}.json and .png have these figures.")


main()

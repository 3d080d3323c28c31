"""The figures as a table, as JSON and as a picture."""

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import rpcshare
from bench.figures import Figure

__all__ = ["HEADER", "machine", "picture", "row", "write_json"]

HEADER = f"{'':38} {'ours':>10} {'peer':>10}      {'ratio':>9} {'target':>8}"


def row(figure: Figure) -> str:
    """Return a line of the table."""
    peer = "" if figure.peer is None else f"{figure.peer:10.1f}"
    ratio = "" if figure.peer is None else f"{figure.measured:.3f}"
    target = f"{figure.target:.0f} {figure.unit}" if figure.peer is None else f"{figure.target:.3f}"
    met = "" if figure.measured <= figure.target else "  missed"
    each = ", ".join(f"{name} {value:,.1f}" for name, value in figure.peers.items())
    met = f"{met:8}  ({each})" if each else met
    return f"{figure.name:38} {figure.ours:10.1f} {peer:>10} {figure.unit:4} {ratio:>9} {target:>8}{met}"


def machine() -> dict[str, object]:
    """Return what the figures were measured on, and how busy it was with other things."""
    node = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return {
        "host": platform.node(),
        "cpu": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "node": node,
        "rpcshare": rpcshare.__version__,
    }


def write_json(
    path: Path, described: Mapping[str, object], figures: Sequence[Figure], counted: Mapping[str, float]
) -> None:
    """Write all that was measured."""
    rows = [figure._asdict() | {"measured": figure.measured} for figure in figures]
    when = datetime.now(UTC).isoformat(timespec="seconds")
    document = {"when": when, "machine": described, "figures": rows, "counted": counted}
    path.write_text(json.dumps(document, indent=1))


# The picture: a bar for each figure, as far as it is from the peer's, on a scale of factors.

WIDTH, ROW, LEFT, RIGHT = 980, 30, 330, 130
LEAST, MOST = 0.003, 4.0
INK, FAINT, MET, MISSED = "#222222", "#bbbbbb", "#3a7d44", "#b5532a"


def picture(path: Path, title: str, figures: Sequence[Figure]) -> None:
    """Draw the ratios to the peer as a PNG: bars to the left of the line at 1 are ours being ahead."""
    compared = [figure for figure in figures if figure.peer is not None]
    height = ROW * (len(compared) + 4)
    image = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(15)

    def place(ratio: float) -> float:
        within = math.log(min(max(ratio, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
        return LEFT + within * (WIDTH - LEFT - RIGHT)

    draw.text((10, 7), title, INK, font)
    for ratio in (0.01, 0.1, 1.0):
        draw.line((place(ratio), ROW, place(ratio), height - 2 * ROW), INK if ratio == 1 else FAINT)
        draw.text((place(ratio) - 10, height - 2 * ROW + 4), f"{ratio:g}", INK, font)
    for number, figure in enumerate(compared):
        top = ROW * (number + 1.4)
        draw.text((10, top), figure.name, INK, font)
        color = MET if figure.measured <= figure.target else MISSED
        draw.rectangle((LEFT, top + 3, place(figure.measured), top + ROW - 12), fill=color)
        draw.line((place(figure.target), top, place(figure.target), top + ROW - 9), INK, 2)
        draw.text((WIDTH - RIGHT + 10, top), f"{figure.measured:.3f}", INK, font)
    draw.text((LEFT, height - ROW), "ours / peer: less is better. The mark is the target.", INK, font)
    image.save(path)

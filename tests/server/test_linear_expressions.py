"""The regular expressions that the server's own process applies to what others send take linear time.

Each is tried on long text made of what stands in it, in a process that the kernel kills when one has taken
far more CPU time than it would if it were linear.
"""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# What these read, the operator of the server wrote, or the user of a client.
TRUSTED = (
    *("rpcshare.cli", "rpcshare.client", "rpcshare.conformance", "rpcshare.maintenance"),
    *("rpcshare.auth.token_keys", "rpcshare.auth.certificate_files", "rpcshare.auth.private_ca"),
)
# These run in render processes alone; an import rule says so.
DRAWING = (
    "markdown",
    "highlighting",
    "diffs",
    "code_and_prose",
    "parts",
    "tools",
    "piece_rendering",
    "render_process",
)

PROGRAM = r"""
import importlib, inspect, itertools, pkgutil, re, signal, sys
from re import _parser

LENGTH = 60_000
SECONDS = 3  # for one expression; the slowest takes 0.3
trusted, drawing = (each.split() for each in sys.argv[1:3])

def literals(tree, found):
    for operation, value in tree:
        values = value if isinstance(value, (list, tuple)) else [value]
        if operation in (_parser.LITERAL, _parser.NOT_LITERAL):
            found.append(chr(value))
        elif operation is _parser.IN:
            for kind, each in value:
                if kind is _parser.LITERAL:
                    found.append(chr(each))
                elif kind is _parser.RANGE:
                    found.append(chr(each[0]))
        else:
            for each in values:
                if isinstance(each, _parser.SubPattern):
                    literals(each, found)
                elif isinstance(each, list):
                    for inner in each[:1]:  # the first of several alternatives
                        if isinstance(inner, _parser.SubPattern):
                            literals(inner, found)
    return found

def texts(pattern):
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    flags = pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags
    found = literals(_parser.parse(source, flags), [])
    single = list(dict.fromkeys([*found, "a", "0", " ", "\n"]))[:16]
    whole = "".join(found)[:60]
    for one in (*single, whole):
        yield one * (LENGTH // max(1, len(one)))
        yield whole + one * (LENGTH // max(1, len(one))) + "\x00"
    for length in range(2, min(len(whole), 24)):
        yield whole[:length] * (LENGTH // length)
    for one, other in itertools.permutations(single[:6], 2):
        yield (one + other) * (LENGTH // 2)
        yield one * (LENGTH // 2) + other * (LENGTH // 2) + "\x00"

def patterns(module):
    for name, value in vars(module).items():
        if isinstance(value, re.Pattern):
            yield name, value
        elif isinstance(value, list | tuple):
            for each in value:
                for inner in each if isinstance(each, tuple) else [each]:
                    if isinstance(inner, re.Pattern):
                        yield name, inner

tried = 0
import rpcshare
for info in pkgutil.walk_packages(rpcshare.__path__, "rpcshare."):
    if info.name.startswith(tuple(trusted)) or info.name.endswith("__main__"):
        continue
    if info.name.startswith("rpcshare.render.") and info.name.rpartition(".")[2] in drawing:
        continue
    module = importlib.import_module(info.name)
    try:
        source = inspect.getsource(module)
    except OSError:
        continue  # compiled
    for name, pattern in patterns(module):
        used = set(re.findall(rf"\b{name}\.(fullmatch|match|search|sub)\(", source)) or {"search"}
        print(info.name, name, *used, flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        for text in texts(pattern):
            subject = text.encode("utf-8", "replace") if isinstance(pattern.pattern, bytes) else text
            for method in used:
                if method == "sub":
                    pattern.sub(subject[:0], subject)
                else:
                    getattr(pattern, method)(subject)
        signal.setitimer(signal.ITIMER_PROF, 0)
        tried += 1
assert tried > 20, tried
print("all", tried)
"""


def test_every_expression_takes_linear_time() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, " ".join(TRUSTED), " ".join(DRAWING)],
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, (last, done.stderr[-2000:])

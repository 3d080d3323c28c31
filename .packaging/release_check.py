"""Does every step of a release that needs no registry's leave, and uses what comes of it as a stranger would.

``make release-check`` runs it. It builds the sdist and the wheels (compiled, where there is a C compiler, and
pure), installs each into an empty environment, and serves and shares a session with it; it has twine check
them; it packs each npm package and checks its files, links and types; it has actionlint check the workflows.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from compiling import what_is_missing
from repository import npm_addresses, read_repository

ROOT = Path(__file__).parents[1]
CLIENTS = ROOT / "clients"
PACKAGES = ("types", "share-next", "opencode-plugin", "browser", "messagepack")
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
TIMEOUT = 900  # seconds; compiling is what takes long
SESSION = [
    {"type": "session", "data": {"id": "ses_release_0001", "title": "From a release"}},
    {"type": "message", "data": {"id": "msg_1", "role": "user"}},
]

# What a consumer with the strictest settings compiles.
CONSUMER = """
import type { ShareRpc, SyncData } from "@rpcshare/types";
import { ShareNext } from "@rpcshare/share-next";
import { watch, type WatchedShare } from "@rpcshare/browser";
import * as plugin from "@rpcshare/opencode-plugin";
import { newMessagePackRpcSession, subprotocols } from "@rpcshare/messagepack";

export const items: SyncData[] = [{ type: "message", data: { id: "msg_1" } }];
export const watching = (link: string): WatchedShare => watch(link).share;
export const offered: readonly string[] = subprotocols();
export type Api = ShareRpc;
export { ShareNext, newMessagePackRpcSession, plugin };
"""


def say(what: str) -> None:
    print(f"== {what}", flush=True)


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """Run a command, and return what it printed. If it fails, so does the check, with all that it wrote."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RPCSHARE_")}
    finished = subprocess.run(
        command,
        cwd=cwd,
        env={**bare, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if finished.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit status {finished.returncode}\n{finished.stdout}")
    return finished.stdout


def require(what: object, why: str) -> None:
    if not what:
        sys.exit(f"release-check: {why}")


# --- Python --------------------------------------------------------------------------------------


def distributions(into: Path) -> list[tuple[Path, str]]:
    """Build all that would be uploaded; return each file with the core that it has to run."""
    say("The sdist, and from it the pure wheel")
    run(sys.executable, "-m", "build", "--outdir", into)
    (sdist,), (pure,) = into.glob("*.tar.gz"), into.glob("*-none-any.whl")
    built = [(sdist, "pure Python"), (pure, "pure Python")]
    missing = what_is_missing()
    if missing is not None:
        say(f"No compiled wheel: {missing}")
        return built
    say("The compiled wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", into, RPCSHARE_COMPILE="1")
    (compiled,) = set(into.glob("*.whl")) - {pure}
    return [*built, (compiled, "compiled")]


def try_out(distribution: Path, core: str, work: Path) -> None:
    """Install ``distribution`` into an empty environment; serve, and share a session, with that alone."""
    say(f"{distribution.name} in an empty environment")
    environment = work / "environment"
    venv.create(environment, clear=True, with_pip=True)
    python, rpcshare = environment / "bin" / "python", environment / "bin" / "rpcshare"
    constraints = ROOT / ".ci" / "constraints.txt"
    run(python, "-m", "pip", "install", "-q", "-c", constraints, f"{distribution}[server]")
    versions = {run(*command, "--version", cwd=work) for command in ([rpcshare], [python, "-m", "rpcshare"])}
    require(len(versions) == 1 and f"({core})" in versions.pop(), f"{distribution.name} does not run {core}")
    share(rpcshare, work)


def share(rpcshare: Path, work: Path) -> None:
    """Serve, push a session, pull it back, and stop."""
    data = work / "data"
    shutil.rmtree(data, ignore_errors=True)
    (work / "session.json").write_text(json.dumps(SESSION))
    command = [rpcshare, "serve", "--port=0", f"--data-dir={data}"]
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None  # noqa: S101 -- it is there
            said = server.stdout.readline()
            url = said.split()[4]
            where = {"RPCSHARE_URL": url, "RPCSHARE_TOKEN": (data / "admin-token").read_text().strip()}
            link = run(rpcshare, "push", "session.json", cwd=work, **where).split()[-1]
            pulled = json.loads(run(rpcshare, "pull", link, "--format=json", cwd=work, **where))
            require(pulled["session"]["title"] == "From a release", f"{rpcshare} has not shared the session")
        finally:
            server.terminate()
            server.communicate(timeout=30)
    require(server.returncode == 0, "the server did not stop cleanly")


def check_client_alone(wheel: Path, work: Path) -> None:
    """Install what a client needs, and no more: it imports, and the command says what it lacks."""
    say("The client without the server's packages")
    environment = work / "client"
    venv.create(environment, clear=True, with_pip=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / ".ci" / "constraints.txt", wheel)
    run(python, "-c", "import rpcshare, rpcshare.rpc; rpcshare.connect, rpcshare.ShareClient", cwd=work)
    told = subprocess.run(
        [environment / "bin" / "rpcshare", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    is_told = told.returncode and "rpcshare[server]" in told.stderr and "Traceback" not in told.stderr
    require(is_told, f"the command without its packages does not say what to install: {told.stderr}")


def check_metadata(files: Sequence[Path]) -> None:
    say("twine check")
    print(run(sys.executable, "-m", "twine", "check", "--strict", *files).strip())


# --- npm -----------------------------------------------------------------------------------------


def check_packages(work: Path) -> None:
    """Pack each npm package, look into it, and compile a strict consumer against all of them."""
    npm = shutil.which("npm")
    if npm is None or not (CLIENTS / "node_modules" / "typescript").is_dir():
        say("No npm packages: needs npm, and clients/node_modules (make node-peers)")
        return
    run(CLIENTS / "node_modules" / ".bin" / "tsc", "--build", cwd=CLIENTS)
    tarballs = []
    for package in PACKAGES:
        say(f"npm pack clients/{package}")
        options = ("--silent", "--ignore-scripts", "--pack-destination", work)
        tarballs.append(work / run(npm, "pack", *options, cwd=CLIENTS / package).split()[-1])
        check_tarball(tarballs[-1], package)
    check_types(npm, tarballs, work / "consumer")


def check_tarball(tarball: Path, package: str) -> None:
    with tarfile.open(tarball) as files:
        names = {name.removeprefix("package/") for name in files.getnames()}
        manifest = json.load(files.extractfile("package/package.json"))  # type: ignore[arg-type]  # it is a file
        readme = files.extractfile("package/README.md").read().decode()  # type: ignore[union-attr]  # likewise
    require({"LICENSE", "README.md"} <= names, f"{package}: LICENSE or README.md is missing")
    addresses = npm_addresses(read_repository().url, f"clients/{package}")
    require(manifest == {**manifest, **addresses}, f"{package}: run .packaging/repository.py")
    require(not [name for name in names if "test" in name or name.endswith(".map")], f"{package}: {names}")
    for entry in json.dumps(manifest["exports"]).split('"'):
        require(not entry.startswith("./") or entry[2:] in names, f"{package}: {entry} is not packed")
    # npm resolves relative links of a README within repository.directory.
    for link in re.findall(r"\]\((?![a-z]+:|#)([^)\s#]+)", readme):
        require((CLIENTS / package / link).exists(), f"{package}: its README links {link}")


def check_types(npm: str, tarballs: Sequence[Path], consumer: Path) -> None:
    """Compile a strict project that has installed them. Errors in packages of others do not count."""
    say("tsc --strict in a project that has installed the packages")
    consumer.mkdir()
    dependencies = {
        f"@rpcshare/{package}": f"file:{path}" for package, path in zip(PACKAGES, tarballs, strict=True)
    }
    others = {"capnweb": "0.12.0", "typescript": "5.9.3", "@types/node": "20.19.9"}
    others |= {"@opencode-ai/sdk": "1.18.33"}  # a peer, whose types the plugin's have in them
    manifest = {"private": True, "type": "module", "dependencies": {**dependencies, **others}}
    (consumer / "package.json").write_text(json.dumps(manifest))
    run(npm, "install", "--no-audit", "--no-fund", "--loglevel=error", cwd=consumer)
    (consumer / "consumer.ts").write_text(CONSUMER)
    strict = ["--strict", "--noEmit", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess"]
    for resolution in (["--module", "nodenext"], ["--module", "esnext", "--moduleResolution", "bundler"]):
        options = [*strict, "--target", "es2022", "--lib", "es2023,dom", *resolution]
        command = [consumer / "node_modules" / ".bin" / "tsc", *options, "consumer.ts"]
        told = subprocess.run(
            command, cwd=consumer, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        others_own = re.compile(r"^(?:node_modules/(?!@rpcshare/)|\s)")
        ours = [line for line in told.stdout.splitlines() if line and not others_own.match(line)]
        require(not ours, "\n".join(["the types do not compile:", *ours]))


# --- workflows -----------------------------------------------------------------------------------


def check_workflows() -> None:
    go = shutil.which("go")
    program = shutil.which("actionlint")
    if program is None and go is None:
        say("actionlint is skipped: needs actionlint, or go to run it")
        return
    say("actionlint")
    run(*([program] if program else [str(go), "run", ACTIONLINT]))


def main() -> None:
    repository = read_repository()
    with tempfile.TemporaryDirectory(prefix="rpcshare-release-") as name:
        work = Path(name)
        built = distributions(work / "dist")
        check_metadata([path for path, _ in built])
        for path, core in built:
            try_out(path, core, work)
        check_client_alone(built[1][0], work)
        check_packages(work)
        check_workflows()
    if repository.is_placeholder:
        say(f"Before a release: {repository.url} is a placeholder (tool.rpcshare in pyproject.toml)")
    say("release-check: all is well")


if __name__ == "__main__":
    main()

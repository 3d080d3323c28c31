"""nginx, HAProxy and Caddy, set up by the files in examples/proxies, as far as they are installed."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from support.several_workers import until

__all__ = ["free_port", "running_proxy"]

EXAMPLES = Path(__file__).parents[2] / "examples" / "proxies"

# What a distribution has around the file.
_NGINX = """
{user} worker_processes 1; daemon off; pid {dir}/pid; error_log {dir}/error.log;
events {{}}
http {{
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  include {dir}/example.conf;
}}
"""

_FILES = {
    "nginx": ("nginx.conf", "nginx-base-path.conf"),
    "haproxy": ("haproxy.cfg", "haproxy-base-path.cfg"),
    "caddy": ("Caddyfile", "Caddyfile-base-path"),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _here(text: str, changes: dict[str, str]) -> str:
    """Return an example for this test's ports, without TLS; whatever it does not have is an error."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def _nginx(text: str, directory: Path, front: int) -> str:
    changes = {
        "listen 443 ssl;": f"listen 127.0.0.1:{front};",
        "server_name share.example;": "",
        "ssl_certificate /etc/ssl/share.example/fullchain.pem;": "",
        "ssl_certificate_key /etc/ssl/share.example/privkey.pem;": "",
        "/var/log/nginx/rpcshare.log": f"{directory}/access.log",
    }
    return _here(text, changes)


def _caddy(text: str, front: int) -> str:
    start = "{\n\tadmin off\n\tauto_https off\n}\n"
    return start + _here(text, {"share.example {": f"http://:{front} {{\n\tbind 127.0.0.1"})


def _command(program: str, path: str, directory: Path, front: int, text: str) -> list[str]:
    """Write the configuration of a proxy; return how it is started."""
    file = directory / "proxy.conf"
    if program == "nginx":
        (directory / "example.conf").write_text(_nginx(text, directory, front))
        user = "user root;" if os.geteuid() == 0 else ""  # or its worker could not write to the folder
        file.write_text(_NGINX.format(dir=directory, user=user))
        return [path, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(file)]
    if program == "haproxy":
        bind = {"bind :443 ssl crt /etc/ssl/share.example.pem": f"bind 127.0.0.1:{front}"}
        file.write_text(_here(text, bind))
        return [path, "-db", "-f", str(file)]
    file.write_text(_caddy(text, front))
    return [path, "run", "--adapter", "caddyfile", "--config", str(file)]


@contextmanager
def running_proxy(
    program: str,
    directory: Path,
    front: int,
    back: int,
    *,
    base_path: bool = False,
    changes: dict[str, str] | None = None,
) -> Iterator[None]:
    """Run a proxy with its example until the context ends.

    Args:
        program: ``nginx``, ``haproxy`` or ``caddy``.
        directory: what it may write to.
        front: the port to listen on.
        back: the server's.
        base_path: whether the server is below ``/rpcshare``.
        changes: to the example, beside ports and TLS.
    """
    path = shutil.which(program, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if path is None:
        pytest.skip(f"needs {program}: apt-get install {program}")
    directory.chmod(0o755)
    text = (EXAMPLES / _FILES[program][base_path]).read_text()
    text = _here(text, {"127.0.0.1:8787": f"127.0.0.1:{back}", **(changes or {})})
    command = _command(program, path, directory, front, text)
    health = f"http://127.0.0.1:{front}{'/rpcshare' if base_path else ''}/healthz"
    with ExitStack() as stack:
        log = stack.enter_context((directory / "log").open("wb"))
        environment = {"HOME": str(directory), "XDG_DATA_HOME": str(directory), "PATH": "/usr/bin:/bin"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        stack.callback(process.wait, 10)
        stack.callback(process.kill)
        until(lambda: _answers(health) or process.poll() is not None, "the proxy answers", 30)
        assert process.poll() is None, (directory / "log").read_text()
        yield
        process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).status_code == 200
    except httpx.TransportError:
        return False

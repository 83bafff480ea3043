"""Remotes of DVC with real servers, and what is done and seen there."""

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from helpers.engines import run
from helpers.projects import ROOT
from relearn import grid

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
LACKS = {
    "sshd (Debian's openssh-server)": SSHD,
    "root": os.geteuid() == 0,
    "dvc-ssh": importlib.util.find_spec("dvc_ssh"),
}
MISSING = ", ".join(name for name, there in LACKS.items() if not there)


SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


@contextlib.contextmanager
def served(way: str, store: Path, port: int | None = None):
    """The settings of a remote that leads to the folder `store`, while it can be reached; `port` was a free one."""
    if way == "folder":
        yield {"url": store, "verify": "true"}
    elif way == "http":
        with web_server(store, port or 0) as port:
            yield {"url": f"http://127.0.0.1:{port}", "verify": "true"}
    else:
        with ssh_server(store.parent / "ssh", port or free_port()) as (port, key):
            yield {"url": f"ssh://127.0.0.1{store}", "user": "root", "port": port, "keyfile": key, "verify": "true"}


@contextlib.contextmanager
def web_server(store: Path, port: int):
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(store)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def ssh_server(folder: Path, port: int):
    folder.mkdir(exist_ok=True)
    for name in ("host", "user"):
        if not (folder / name).exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "config").write_text(SSHD_CONFIG.format(folder=folder, port=port))
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks its unprivileged half up; made by Debian's service only
    with open(folder / "log", "a") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=log)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield port, folder / "user"
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def port_of(settings: dict) -> int:
    return int(settings.get("port") or settings["url"].rpartition(":")[2])


def page(heading: str) -> str:
    """The commands under a heading of docs/sharing.md."""
    _, found, section = (ROOT / "docs/sharing.md").read_text().partition(f"\n### {heading}\n")
    assert found, heading
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", section.partition("\n### ")[0], re.DOTALL | re.MULTILINE))


def follow(folder: Path, heading: str, replaced: dict | None = None) -> None:
    """Run the commands under a heading, with the reader's own values put in."""
    commands = page(heading)
    for ours, theirs in (replaced or {}).items():
        assert ours in commands, f"{ours} is not in the section {heading}"
        commands = commands.replace(ours, str(theirs))
    run(folder, "bash", "-eu", "-c", commands)


def corrupt(path: Path) -> None:
    """Other bytes in a file that stays read-only, as DVC leaves its objects."""
    path.chmod(0o644)
    path.write_text("bad\n")
    path.chmod(0o444)


def fails(folder: Path, *command: str) -> str:
    """What a command says that has to fail, in lines for people."""
    output = run(folder, *command, fails=True)
    assert "Traceback" not in output
    assert any(line.startswith("ERROR: ") for line in output.splitlines()), output
    return output


def named(output: str) -> list[str]:
    """The artifacts DVC says it could not bring."""
    _, _, lines = output.partition("Checkout failed for following targets:")
    return [line for line in lines.splitlines() if line.startswith(f"{grid.RESULTS}/")]


def there(folder: Path) -> dict:
    """Content and time of every file in results/."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (folder / "results").rglob("*") if path.is_file()
    }

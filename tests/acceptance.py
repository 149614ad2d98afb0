"""What a new user does, with the wheel alone: `python tests/acceptance.py WHEEL [--python PYTHON]`.

In an empty HOME and an empty environment it installs the wheel, and runs from another folder each program of README.md
and docs/ in order, each example and each command of the command line. It ends with 1 if one prints a traceback, ends
with another code than it should, or does not end. A Redis is started where none listens on port 6379: the programs of
docs/tcp.md name that port.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
# In the order in which somebody new reads them.
DOCUMENTS = ("README.md", *(f"docs/{name}.md" for name in ("quickstart", "tcp", "http", "testing")))
# The rest needs no order.
OTHERS = tuple(sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))
# What programs of the documents use beside the base.
EXTRAS = "json,msgpack,httpx,otel"
# Ends a program that hangs; the demos take a minute on a machine that is busy.
LIMIT_S = 180.0
# For programs that run until they are stopped.
ENDLESS_S = 3.0


class User:
    """Somebody whose HOME is empty, and who has the wheel."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder / "work"
        self.failures = 0
        self._environment = {
            "HOME": str(folder / "home"),
            "PATH": f"{folder}/venv/bin:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))},
        }
        self.folder.mkdir()
        (folder / "home").mkdir()
        subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True)
        self.python = str(folder / "venv" / "bin" / "python")
        self.bin = folder / "venv" / "bin"

    def install(self, *what: str) -> None:
        command = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
        subprocess.run(command, check=True, env=self._environment, cwd=self.folder)

    def runs(
        self, name: str, command: Sequence[str], codes: Sequence[int] = (0,), given: bytes = b"", endless: bool = False
    ) -> bytes:
        """Run a command, and say how it went. Returns its output."""
        began = time.monotonic()
        limit = ENDLESS_S if endless else LIMIT_S
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = process.communicate(given, timeout=limit)
            wrong = "" if process.returncode in codes else f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            wrong = "" if endless else f"not done after {limit:g} s"
        if b"Traceback" in output:
            wrong = "a traceback"
        print(
            f"{'FAILED' if wrong else 'ok':6} {time.monotonic() - began:5.1f} s  {name}{wrong and f': {wrong}'}",
            flush=True,
        )
        if wrong:
            self.failures += 1
            print(output.decode(errors="replace"))
        return output


def programs(document: str) -> Iterator[tuple[str, str]]:
    text = (ROOT / document).read_text()
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield f"{document}:{text.count(chr(10), 0, found.start()) + 2}", found[1]


def play_documents(user: User, documents: Sequence[str]) -> None:
    runner = user.folder / "documented.py"
    shutil.copy(ROOT / "tests" / "support" / "documented.py", runner)
    for document in documents:
        for number, (place, code) in enumerate(programs(document)):
            program = user.folder / f"{Path(document).stem}_{number}.py"
            # Where a document leaves a checksum out: that of the stand-in's file, which is empty.
            program.write_text(code.replace("sha256:...", f"sha256:{hashlib.sha256().hexdigest()}"))
            stand_in = [str(runner)] if "api.example.com" in code and "MockHTTP" not in code else []
            user.runs(place, [user.python, *stand_in, str(program)], endless="while True:" in code)


def play_examples(user: User) -> None:
    for example in sorted((ROOT / "examples").glob("*.py")):
        copy = user.folder / example.name
        shutil.copy(example, copy)
        if "distributed" in example.name:
            continue  # Dask is no part of an empty environment
        user.runs(f"{example.name} --help", [user.python, str(copy), "--help"])
        # 2: it says what it has to be given.
        user.runs(example.name, [user.python, str(copy)], codes=(0, 2))


def play_commands(user: User, web: int, redis: int) -> None:
    command = str(user.bin / "pepperpy-network")
    module = [user.python, "-m", "pepperpy.network"]
    user.runs("--version", [command, "--version"])
    for words in ([], ["doctor"], ["demo"], ["bench"], ["get"], ["tcp"]):
        user.runs(" ".join([*words, "--help"]), [*module, *words, "--help"])
    user.runs("doctor", [command, "doctor"])
    user.runs("demo", [command, "demo"])
    user.runs("bench", [command, "bench"])
    url = f"http://127.0.0.1:{web}/page.txt"
    assert b"hello" in user.runs("get", [command, "get", url, "-i"])
    user.runs("get -o", [command, "get", url, "-o", "page.txt"])
    user.runs("get, a missing page", [command, "get", f"{url}x"], codes=(9,))
    user.runs("get, nobody there", [command, "get", "http://127.0.0.1:9/", "--retries", "0"], codes=(3,))
    user.runs("get, no URL", [command, "get", "nonsense"], codes=(2,))
    assert b"+PONG" in user.runs("tcp", [command, "tcp", f"127.0.0.1:{redis}"], given=b"PING\r\nQUIT\r\n")
    user.runs("tcp, nobody there", [command, "tcp", "127.0.0.1:9"], codes=(3,))
    # Redis answers a handshake only if there is a line end in its random bytes.
    no_tls = [command, "tcp", f"tls://127.0.0.1:{redis}", "--timeout", "2"]
    user.runs("tcp, no TLS there", no_tls, codes=(4, 6))
    user.runs("get, two values", [command, "get", url, "-H", "X: 1", "-H", "X: 2"])


@contextlib.contextmanager
def redis_on(port: int, folder: Path) -> Iterator[None]:
    if listens(port):
        yield
        return
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def website(python: str, folder: Path) -> Iterator[int]:
    (folder / "page.txt").write_text("hello\n")
    with socket.socket() as sock:
        # Bound as long as the server needs it: nobody else gets the port, as in support/processes.py.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        command = [python, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while not listens(port):
        if time.monotonic() > until:
            sys.exit(f"nothing listens on port {port} after 60 s")
        time.sleep(0.05)  # between two looks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the environment")
    arguments = parser.parse_args()
    wheel = arguments.wheel.resolve(strict=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        user = User(folder, arguments.python)
        (folder / "web").mkdir()
        with redis_on(6379, folder), website(user.python, folder / "web") as web:
            user.install(str(wheel))
            play_documents(user, DOCUMENTS[:2])
            play_examples(user)
            play_commands(user, web, 6379)
            user.install(f"{wheel}[{EXTRAS}]")
            play_documents(user, (*DOCUMENTS[2:], *(document for document in OTHERS if document not in DOCUMENTS)))
    sys.exit(f"{user.failures} failed" if user.failures else None)


if __name__ == "__main__":
    main()

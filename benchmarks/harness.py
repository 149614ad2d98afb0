"""Runs one peer on one workload: a fresh server process, a fresh client process, one report."""

from __future__ import annotations

import ast
import atexit
import compileall
import contextlib
import functools
import gzip
import json
import os
import shutil
import socket
import ssl
import statistics
import string
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import http_load
from workloads import HTTP_WORKLOADS, Workload

HERE = Path(__file__).parent
# The limit of each family: a program of this folder.
C_CLIENTS = {"tcp.c_client": "c_client", "http.c_http": "c_http"}
TOO_WIDE = 0.25  # of the median: (slowest - fastest) beyond which a figure says that it is unsure. Arbitrary.


@dataclass(frozen=True)
class Peer:
    """A peer on one of its loops."""

    name: str  # tcp.streams
    loop: str  # asyncio, uvloop, trio, none

    def __str__(self) -> str:
        short = self.name.partition(".")[2]
        return short if self.loop == "none" else f"{short}-{self.loop}"


@functools.cache
def peers(family: str) -> list[tuple[Peer, frozenset[str]]]:
    """The peers in a folder of peers/, with the kinds of workload that each knows; read, not imported."""
    found = []
    for path in sorted((HERE / "peers" / family).glob("*.py")):
        tree = ast.parse(path.read_text())
        kinds = frozenset(
            node.name
            for node in tree.body
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and node.name[0] != "_"
        )
        loops = ("asyncio", "uvloop")
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LOOPS":
                loops = ast.literal_eval(node.value)
        found += [(Peer(f"{family}.{path.stem}", loop), kinds) for loop in loops]
    found += [(Peer(name, "none"), c_kinds(name)) for name in C_CLIENTS if name.startswith(family)]
    return found


def peers_for(workload: Workload) -> list[Peer]:
    family = "http" if workload.family == "HTTP" else "tcp"
    known = [peer for peer, kinds in peers(family) if workload.kind in kinds]
    # The C clients speak no TLS, know one host, and unpack nothing.
    beyond_c = workload.tls or workload.hosts > 1 or workload.path == "/packed"
    return [peer for peer in known if not (peer.name in C_CLIENTS and beyond_c)]


@functools.cache
def new_folder(name: str) -> Path:
    """Of this process, until it ends."""
    folder = tempfile.TemporaryDirectory(prefix=f"bench-{name}-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def certificate() -> tuple[str, str]:
    """PEM files for 127.0.0.1: the authority, and the server's certificate with its key."""
    import trustme

    folder = new_folder("certificate")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        str(folder / "server.pem")
    )
    return str(folder / "ca.pem"), str(folder / "server.pem")


@contextlib.contextmanager
def server(workload: Workload) -> Iterator[int]:
    """The port of a server in a process of its own."""
    if workload.server == "nginx":
        with nginx(workload) as port:
            yield port
        return
    if workload.server == "echo" and not workload.tls and sys.platform == "linux" and has_compiler():
        command = [built("c_echo")]
    else:
        command = [sys.executable, str(HERE / "server.py"), workload.server]
    if workload.tls:
        command.append(certificate()[1])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        pin_to_last_core(process)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


@functools.cache
def nginx_files() -> Path:
    """What nginx serves from a folder."""
    folder = new_folder("nginx-files")
    sizes = {workload.path: workload.size for workload in HTTP_WORKLOADS.values()}
    (folder / "file").write_bytes(http_load.body_of("/file", sizes["/file"]))
    (folder / "packed.gz").write_bytes(gzip.compress(http_load.body_of("/packed", sizes["/packed"])))
    (folder / "empty").touch()
    return folder


@contextlib.contextmanager
def nginx(workload: Workload) -> Iterator[int]:
    """The port of an nginx of its own, on the last core; nginx.conf.in says what it serves."""
    # Debian has it where only root's PATH looks.
    binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert binary, "nginx is not installed; `make servers` installs it"
    with tempfile.TemporaryDirectory(prefix="bench-nginx-") as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = "backlog=4096 ssl" if workload.tls else "backlog=4096"
        values = {
            "listen": "".join(f"listen 127.0.0.{n}:{port} {options};" for n in range(1, workload.hosts + 1)),
            "tls": "",
            "text": http_load.body_of("/", 100).decode(),
            "json": http_load.body_of("/json", 0).decode(),
            "folder": nginx_files(),
        }
        if workload.tls:
            values["tls"] = "ssl_certificate {0}; ssl_certificate_key {0};".format(certificate()[1])
        text = string.Template((HERE / "nginx.conf.in").read_text()).substitute(values)
        (Path(folder) / "nginx.conf").write_text(text)
        with subprocess.Popen([binary, "-p", folder, "-c", "nginx.conf", "-e", "stderr"]) as process:
            pin_to_last_core(process)
            try:
                for _ in range(500):
                    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                        break
                    time.sleep(0.01)
                else:
                    raise RuntimeError("nginx accepts no connection after 5 seconds; it says why above")
                yield port
            finally:
                process.terminate()


def pin_to_last_core(process: subprocess.Popen[Any]) -> None:
    """Clients are on the first."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})


def has_compiler() -> bool:
    return shutil.which(os.environ.get("CC", "cc")) is not None


def nginx_counts(workload: Workload, port: int) -> tuple[int, int]:
    """Connections and requests so far."""
    scheme = "https" if workload.tls else "http"
    context = ssl.create_default_context(cafile=certificate()[0]) if workload.tls else None
    with urllib.request.urlopen(f"{scheme}://127.0.0.1:{port}/status", context=context) as answer:
        # The third line: accepted and handled connections, and requests (ngx_http_stub_status_module).
        accepted, _, requests = answer.read().split(b"\n")[2].split()
    return int(accepted), int(requests)


@functools.cache
def built(name: str) -> str:
    """A C program of this folder, built on first use."""
    target = new_folder("c") / name
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", str(target), str(HERE / f"{name}.c")], check=True)
    return str(target)


@functools.cache
def c_kinds(name: str) -> frozenset[str]:
    """The kinds of workload that a C client knows."""
    if not has_compiler():
        return frozenset()
    command = [built(C_CLIENTS[name])]
    return frozenset(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split())


@functools.cache
def compile_all() -> None:
    """Bytecode for all that a client imports of ours, even where PYTHONDONTWRITEBYTECODE is set.

    A client that has to compile frees large blocks before it begins, and glibc then maps no receive buffers any more:
    asyncio streams were seen to take half of the time.
    """
    for folder in (HERE, HERE.parent / "pepperpy"):
        compileall.compile_dir(folder, quiet=2)


def run(peer: Peer, workload: Workload, seconds: float | None = None) -> dict[str, Any]:
    """What the client reported, after it checked its result."""
    compile_all()
    seconds = workload.seconds if seconds is None else seconds
    with server(workload) as port:
        if peer.name in C_CLIENTS:
            command = [
                built(C_CLIENTS[peer.name]),
                workload.kind,
                *map(str, (port, workload.size, workload.connections, seconds)),
            ]
            if workload.family == "HTTP":
                command.append(workload.path)
            if shutil.which("taskset"):
                command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
        else:
            command = [
                sys.executable,
                str(HERE / "client.py"),
                peer.name,
                workload.name,
                peer.loop,
                str(port),
                str(seconds),
            ]
            if workload.tls:
                command.append(certificate()[0])
        report: dict[str, Any] = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=120).stdout
        )
        if workload.server == "nginx":
            # That a client counts no answer twice, nor any that it had kept.
            claimed = report["operations"] / (workload.size if workload.unit == "bytes" else 1)
            report["accepted_connections"], counted = nginx_counts(workload, port)
            assert counted > claimed, f"{peer} counts {claimed} requests, and nginx only {counted}"
    return report


@dataclass
class Figures:
    """What the rounds of one peer on one workload gave."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    failure: Exception | None = None  # of the first round that failed; there was none after it

    def _median(self, name: str) -> float | None:
        values = [report[name] for report in self.reports if report[name] is not None]
        return statistics.median(values) if values else None

    @property
    def rates(self) -> list[float]:
        """Operations per second, of each round."""
        return [report["operations"] / report["seconds"] for report in self.reports]

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def cpu_seconds(self) -> float:
        """Of processor time, per operation."""
        return statistics.median(report["cpu_seconds"] / report["operations"] for report in self.reports)

    @property
    def p50(self) -> float | None:
        return self._median("p50")

    @property
    def p99(self) -> float | None:
        return self._median("p99")

    @property
    def peak_memory_bytes(self) -> float | None:
        return self._median("peak_memory_bytes")

    @property
    def bytes_per_operation(self) -> float | None:
        return self._median("bytes_per_operation")

    @property
    def spread(self) -> float:
        """(fastest - slowest) / median of the rounds' rates."""
        return (max(self.rates) - min(self.rates)) / self.rate

    @property
    def is_unsure(self) -> bool:
        return self.spread > TOO_WIDE

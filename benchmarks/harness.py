"""Runs one peer on one workload: a fresh server process, a fresh client process, one figure."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workloads import BULK_PIECE, HTTP_BODY, WORKLOADS

HERE = Path(__file__).parent


@contextlib.contextmanager
def server(kind: str) -> Iterator[int]:
    """The port of a server in a process of its own."""
    if kind == "nginx":
        with nginx() as port:
            yield port
        return
    command = [sys.executable, str(HERE / "server.py"), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


@contextlib.contextmanager
def nginx() -> Iterator[int]:
    """The port of an nginx that answers with `HTTP_BODY`, on the last core."""
    # Debian has it where only root's PATH looks.
    binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert binary, "nginx is not installed; `make bench-http` installs it"
    with tempfile.TemporaryDirectory(prefix="bench-nginx-") as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        text = (HERE / "nginx.conf.in").read_text().replace("PORT;", f"{port};").replace("BODY", HTTP_BODY)
        (Path(folder) / "nginx.conf").write_text(text)
        command = [binary, "-p", folder, "-c", "nginx.conf", "-e", "stderr"]
        with subprocess.Popen(command) as process:
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
            try:
                for _ in range(500):
                    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                        break
                    time.sleep(0.01)
                yield port
            finally:
                process.terminate()


@functools.cache
def recv_loop() -> str:
    """The C client, built with the compiler that built the package."""
    target = Path(tempfile.mkdtemp(prefix="recv_loop")) / "recv_loop"
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", str(target), str(HERE / "recv_loop.c")], check=True)
    return str(target)


def run(peer: str, workload: str, loop: str) -> dict[str, Any]:
    """What the client reported, after it checked its result."""
    with server(WORKLOADS[workload].server) as port:
        if peer == "c_recv_loop":
            command = [recv_loop(), str(port), str(BULK_PIECE), str(WORKLOADS[workload].operations)]
            if shutil.which("taskset"):
                command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
        else:
            command = [sys.executable, str(HERE / "client.py"), peer, workload, loop, str(port)]
        report: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return report


@dataclass
class Figures:
    """What the rounds of one peer on one workload gave."""

    reports: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Wall time per operation, the median of the rounds."""
        return statistics.median(r["seconds"] / r["operations"] for r in self.reports)

    @property
    def cpu_seconds(self) -> float:
        return statistics.median(r["cpu_seconds"] / r["operations"] for r in self.reports)

    @property
    def memory_bytes(self) -> float:
        return statistics.median(r.get("bytes_per_operation", 0.0) for r in self.reports)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median of the rounds."""
        each = sorted(r["seconds"] / r["operations"] for r in self.reports)
        return (each[-1] - each[0]) / self.seconds

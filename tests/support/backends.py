"""Servers of others that the clients in `examples/` speak to: memcached, nats-server, PostgreSQL.

Each is an unprivileged child with a folder and a port of its own.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.processes import USER, programs, reserved_ports, server_process, wait_until
from support.proxies import listens


@contextlib.contextmanager
def folder_of_its_own() -> Iterator[Path]:
    # Not below pytest's, which root alone may enter.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        if USER is not None:
            shutil.chown(name, USER)
        yield Path(name)


@contextlib.contextmanager
def memcached_server() -> Iterator[int]:
    """The port of a memcached that takes values of 15 MiB."""
    with folder_of_its_own() as folder, reserved_ports(1) as [port]:
        command = [programs.path("memcached"), "-l", "127.0.0.1", "-p", str(port), "-m", "64", "-I", "15m"]
        with server_process(command, folder / "output", user=USER):
            wait_until(lambda: listens(port), folder / "output")
            yield port


@contextlib.contextmanager
def nats_server(port: int | None = None) -> Iterator[int]:
    """The port of a nats-server, a free one unless it is given."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(folder_of_its_own())
        if port is None:
            [port] = stack.enter_context(reserved_ports(1))
        command = [programs.path("nats-server"), "-a", "127.0.0.1", "-p", str(port)]
        stack.enter_context(server_process(command, folder / "output", user=USER))
        wait_until(lambda: listens(port), folder / "output")
        yield port


@contextlib.contextmanager
def postgres_server() -> Iterator[int]:
    """The port of a PostgreSQL that trusts everybody; its administrator is postgres."""
    with folder_of_its_own() as folder, reserved_ports(1) as [port]:
        made = [programs.path("initdb"), "-D", folder / "data", "-A", "trust", "-U", "postgres", "-E", "UTF8"]
        subprocess.run(
            [*made, "--no-locale", "--no-sync"], check=True, capture_output=True, user=USER, cwd=folder, timeout=120
        )
        command = [programs.path("postgres"), "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port)]
        with server_process([*command, "-k", folder, "-F"], folder / "output", user=USER):
            wait_until(lambda: listens(port), folder / "output")
            yield port

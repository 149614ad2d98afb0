"""Server processes that end with the test, and with the test run however that ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# The shell waits for the end of its standard input, a pipe whose other end only this process holds: even a SIGKILL of
# the test run closes it. PR_SET_PDEATHSIG would do so on Linux alone.
KEEPER = '"$@" & read _; kill $! 2>/dev/null; wait $!'


# PostgreSQL, memcached and squid refuse to run as root, as which the tests may run.
USER = "nobody" if hasattr(os, "geteuid") and os.geteuid() == 0 else None


class Programs:
    """Finds the programs of others that tests run: nginx, redis, proxies, openssl. `make test` installs them."""

    allowed = True  # conftest.py: for a test that is marked needs_server

    def path(self, name: str) -> str:
        assert self.allowed, f"this test runs {name}: mark it needs_server, as `make fast` leaves such tests out"
        # Debian has nginx where only root's PATH looks, and PostgreSQL in a folder for each version.
        places = [os.environ["PATH"], "/usr/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
        found = shutil.which(name, path=":".join(places))
        assert found, f"{name} is not installed; `make test` installs it"
        return found


programs = Programs()


@contextlib.contextmanager
def server_process(command: Sequence[str | Path], output: Path, user: str | None = None) -> Iterator[None]:
    """Run `command` until the end of the block, what it prints in the file `output`; as that user, if one is given."""
    with open(output, "ab") as printed:
        process = subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=printed,
            user=user,
            start_new_session=True,  # Ctrl-C ends the test run in its own order, not its servers first
        )
    # Leaving Popen's block closes the pipe and waits.
    with process:
        yield


@contextlib.contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Free ports of 127.0.0.1 that stay free for a server which is started within the block.

    They are bound, but nobody listens: Linux lets one who sets SO_REUSEADDR, as servers do, bind and listen all the
    same, and gives the port to nobody else who asks for a free one.
    """
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
        yield ports


def wait_until(started: Callable[[], bool], output: Path) -> None:
    """Wait until a server has started; AssertionError with its output if that takes more than 30 seconds."""
    deadline = time.monotonic() + 30
    while not started():
        assert time.monotonic() < deadline, f"the server does not start: {output.read_text()!r}"
        time.sleep(0.002)  # another process tells of no event

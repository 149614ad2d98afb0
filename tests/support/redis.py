"""A real redis-server."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator

REDIS = shutil.which("redis-server")


@contextlib.contextmanager
def redis_server() -> Iterator[int]:
    """The port of a redis-server without persistence. Needed: `make test` installs it, so its absence is a failure."""
    assert REDIS, "redis-server is not installed; `make test` installs it"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        options = {"port": str(port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder}
        command = [REDIS, *(word for name, value in options.items() for word in (f"--{name}", value))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if "Ready to accept connections" in line:
                    break
            try:
                yield port
            finally:
                process.terminate()
                with contextlib.suppress(ValueError):
                    process.stdout.read()

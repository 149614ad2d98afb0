"""redis-server, and a client of the tests' own for it."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator

from pepperpy.network import NetworkClient
from support.processes import programs, reserved_ports


@contextlib.contextmanager
def redis_server(**options: object) -> Iterator[int]:
    """The port of a redis-server without persistence, a free one unless it is given."""
    with contextlib.ExitStack() as stack:
        if "port" not in options:
            [options["port"]] = stack.enter_context(reserved_ports(1))
        port = int(str(options["port"]))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        options = {"bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder} | options
        command = [
            programs.path("redis-server"),
            *(word for name, value in options.items() for word in (f"--{name}", str(value))),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if "ready to accept connections" in line.lower():
                    break
            else:
                raise AssertionError("redis-server does not start: " + "".join(said))
            try:
                yield port
            finally:
                process.terminate()
                with contextlib.suppress(ValueError):
                    process.stdout.read()


def command(*words: bytes) -> bytes:
    """One command in RESP2, redis's wire format: an array of strings with their lengths."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


async def reply(client: NetworkClient) -> bytes | int | None:
    line = await client.receive_until(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"$":
        if rest == b"-1":
            return None
        value = await client.receive_exactly(int(rest) + 2)
        assert value.endswith(b"\r\n")
        return value[:-2]
    raise AssertionError(f"unexpected reply {line!r}")

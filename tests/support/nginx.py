"""A real nginx, one process for a whole test session: `with nginx() as server:` gives its ports, URLs and log.

Its locations are the same on all ports (http, another http origin, https, https that asks for a client certificate):

/text, /json                    fixed bodies, TEXT and JSON; /json-as-text says text/plain of the latter
/files/NAME                     the files of `root` with ETag and ranges; PUT and DELETE change them
/files/big.bin                  BIG_SIZE bytes with the digest BIG_SHA256; /slow gives it out at 4 KiB a second
/files/data.json                a JSON list of some 100 KB
/no-ranges/NAME                 the same files, Range is ignored
/no-validators/NAME             the same files, without ETag and Last-Modified
/gzip/NAME                      the same files, compressed on the way (text and JSON only)
/bomb                           200 KB of gzip that are BOMB_SIZE bytes of zeros
/keepalive-3                    ends the connection after the third request on it, saying so on the third
/keepalive-0                    ends the connection after each response, saying so
/keepalive-50ms                 ends an idle connection after 50 milliseconds, unannounced
/redirect/CODE/TARGET           301 302 303 307 308 to /echo of: same, other-port, other-host (localhost), https, http
/chain/N                        N <= 20 redirects with relative locations, then TEXT; /loop redirects to itself for ever
/status/CODE?retry_after=S      400 401 403 404 409 410 429 500 502 503 504 with a body; Retry-After if asked for
/basic-auth                     TEXT for USER and PASSWORD
/upload                         reads the whole body and answers with its size in decimals, any method
/too-large                      413 for a body of more than 1000 bytes
/echo                           JSON with what came, after the whole body was read: method, uri, host, size, and of the
                                headers: authorization, content_type, content_encoding, cookie, user_agent, accept,
                                accept_encoding, expect, transfer_encoding, idempotency_key, via, x_test (values without
                                quotes: nginx does not escape them)
/cookies/set?name=N&value=V     sets a cookie; /echo shows the cookies
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.certificates import ca_file, server_cert
from support.http_faults import gzip_of_zeros
from support.nginx_conf import BASIC_AUTH, write_configuration
from support.processes import programs, reserved_ports, server_process, wait_until

TEXT = "Hello from nginx.\n"
JSON = {"server": "nginx", "numbers": [1, 2, 3]}
BIG_SIZE = 10_000_000
BIG = random.Random(3).randbytes(BIG_SIZE)
BIG_SHA256 = hashlib.sha256(BIG).hexdigest()
BOMB_SIZE = 200 << 20
USER, PASSWORD = BASIC_AUTH


class LoggedRequest(NamedTuple):
    """A request that nginx has finished, or whose client is gone (status 499)."""

    port: int
    method: str
    uri: str
    status: int
    connection: int  # the same number for requests on the same connection
    number: int  # 1 for the first on its connection
    authorized: bool  # an Authorization header came with it
    bytes_sent: int


class Nginx:
    """A running nginx; `root` is the folder of /files."""

    def __init__(self, root: Path, log_file: Path, ports: list[int]) -> None:
        self.root = root
        self.http_port, self.other_port, self.https_port, self.mtls_port = ports
        self._log_file = log_file

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.http_port}{path}"

    def other_url(self, path: str, host: str = "127.0.0.1") -> str:
        """The same at another origin: another port."""
        return f"http://{host}:{self.other_port}{path}"

    def https_url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.https_port}{path}"

    def mtls_url(self, path: str, host: str = "127.0.0.1") -> str:
        """Where 400 is the answer to a client that shows no certificate."""
        return f"https://{host}:{self.mtls_port}{path}"

    @property
    def unix_path(self) -> str:
        """The Unix socket of what `url()` names; with "s" behind it, that of `https_url()`."""
        return str(self.root.parent / "http")

    def requests(self) -> list[LoggedRequest]:
        """The finished requests since `forget_requests()`, in the order of their ends."""
        self._settle()
        logged = (LoggedRequest(*json.loads(line)) for line in self._log_file.read_text().splitlines())
        # A string in the log: nginx writes 000 where there was no answer, which is no JSON number.
        return [request._replace(status=int(request.status)) for request in logged]

    def forget_requests(self) -> None:
        self._settle()
        os.truncate(self._log_file, 0)

    def answers(self) -> bool:
        try:
            self._settle()
        except ConnectionRefusedError:
            return False
        return True

    def _settle(self) -> None:
        # nginx logs a request when it has sent the response, which may be after the client has read it. It is one
        # process with one thread, and writes the log unbuffered: once it answers another request, the line is there.
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/settle")
            connection.getresponse().read()


@contextlib.contextmanager
def nginx() -> Iterator[Nginx]:
    """Start an nginx of its own configuration and folders; it ends with the block or the process."""
    command = programs.path("nginx")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pepperpy-nginx-")))
        errors = folder / "error.log"
        with reserved_ports(4) as ports:
            server = Nginx(folder / "files", folder / "access.log", ports)
            _write_files(folder, server.root)
            conf = write_configuration(folder, ports, server_cert(), ca_file())
            stack.enter_context(server_process([command, "-p", folder, "-c", conf, "-e", errors], errors))
            wait_until(server.answers, errors)
        yield server


def _write_files(folder: Path, root: Path) -> None:
    root.mkdir()
    (root / "big.bin").write_bytes(BIG)
    (root / "data.json").write_text(json.dumps([{"number": n, "square": n * n} for n in range(3000)]))
    (folder / "text").write_text(TEXT)
    (folder / "json").write_text(json.dumps(JSON))
    (folder / "bomb").write_bytes(b"".join(gzip_of_zeros(BOMB_SIZE >> 20)))
    (folder / "htpasswd").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")

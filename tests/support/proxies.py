"""Real proxies, with or without credentials: tinyproxy for plain requests and CONNECT, microsocks for SOCKS5;
socat puts TLS in front of either."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.processes import USER, programs, reserved_ports, server_process, wait_until

PROXY_CREDENTIALS = ("proxy-user", "proxy-secret")

CONFIGURATION = """\
Listen 127.0.0.1
Port {port}
Allow 127.0.0.1
MaxClients 100
Timeout 60
LogLevel Info
ViaProxyName "pepperpy-tinyproxy"
{authorisation}
"""


class Tinyproxy:
    """`url` names the proxy, without credentials."""

    def __init__(self, port: int, log_file: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self._log_file = log_file

    def log(self) -> str:
        """All that it has logged; the line of a request is there before the request is passed on."""
        return self._log_file.read_text()

    def requests(self) -> list[str]:
        """The request lines, in order: `CONNECT localhost:8443 HTTP/1.1`, `GET http://127.0.0.1:8080/ HTTP/1.1`."""
        lines = (line.partition("Request (file descriptor ") for line in self.log().splitlines())
        return [found.partition("): ")[2] for _, _, found in lines if found]


@contextlib.contextmanager
def tinyproxy(credentials: tuple[str, str] | None = None) -> Iterator[Tinyproxy]:
    """A proxy process of its own; with `credentials`, 407 to whoever does not show them."""
    command = programs.path("tinyproxy")
    authorisation = "" if credentials is None else "BasicAuth {} {}".format(*credentials)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pepperpy-tinyproxy-")))
        configuration, log = folder / "tinyproxy.conf", folder / "log"
        with reserved_ports(1) as [port]:
            configuration.write_text(CONFIGURATION.format(port=port, authorisation=authorisation))
            stack.enter_context(server_process([command, "-d", "-c", configuration], log))
            wait_until(lambda: "Accepting connections" in log.read_text(), log)
        yield Tinyproxy(port, log)


@contextlib.contextmanager
def microsocks(credentials: tuple[str, str] | None = None) -> Iterator[int]:
    """The port of a SOCKS5 proxy of its own."""
    command = programs.path("microsocks")
    with contextlib.ExitStack() as stack:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pepperpy-microsocks-"))) / "log"
        with reserved_ports(1) as [port]:
            users = [] if credentials is None else ["-u", credentials[0], "-P", credentials[1]]
            process = [command, "-i", "127.0.0.1", "-p", str(port), *users]
            stack.enter_context(server_process(process, log))
            wait_until(lambda: listens(port), log)
        yield port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def tls_front(port: int, cert: Path, authority: Path | None = None) -> Iterator[int]:
    """A port on which socat speaks TLS and shows `cert`. What it decrypts goes to `port`, and comes from there.

    With `authority`, the client has to show a certificate of it.
    """
    command = programs.path("socat")
    with contextlib.ExitStack() as stack:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pepperpy-socat-"))) / "log"
        with reserved_ports(1) as [front]:
            checks = "verify=0" if authority is None else f"verify=1,cafile={authority}"
            listening = f"OPENSSL-LISTEN:{front},bind=127.0.0.1,reuseaddr,fork,cert={cert},{checks}"
            # -d -d: tells when it listens. A test connection would make it a process, and a line of the log.
            process = [command, "-d", "-d", listening, f"TCP:127.0.0.1:{port}"]
            stack.enter_context(server_process(process, log))
            wait_until(lambda: "listening on" in log.read_text(), log)
        yield front


SQUID = """\
http_port 127.0.0.1:{port}
pid_filename none
cache_log {folder}/cache.log
access_log none
cache deny all
memory_pools off
pinger_enable off
shutdown_lifetime 0 seconds
max_filedescriptors 1024
visible_hostname proxy.test
coredump_dir {folder}
auth_param digest program /usr/lib/squid/digest_file_auth -c {folder}/users
auth_param digest children 1 startup=0 idle=1
auth_param digest realm our proxy
acl known proxy_auth REQUIRED
http_access allow known
"""


class Squid:
    """`url` names the proxy, with credentials."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{':'.join(PROXY_CREDENTIALS)}@127.0.0.1:{port}"


@contextlib.contextmanager
def squid() -> Iterator[Squid]:
    """A proxy process of its own that wants a digest."""
    command = programs.path("squid")
    user, password = PROXY_CREDENTIALS
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pepperpy-squid-")))
        folder.chmod(0o777)  # for USER
        secret = hashlib.md5(f"{user}:our proxy:{password}".encode()).hexdigest()
        (folder / "users").write_text(f"{user}:our proxy:{secret}\n")
        log = folder / "log"
        with reserved_ports(1) as [port]:
            (folder / "conf").write_text(SQUID.format(port=port, folder=folder))
            stack.enter_context(server_process([command, "-N", "-f", folder / "conf"], log, user=USER))
            wait_until(lambda: listens(port), log)
        yield Squid(port)

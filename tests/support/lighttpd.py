"""A real lighttpd that wants digest authentication: its mod_auth is another reading of RFC 7616 than ours."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.processes import programs, reserved_ports, server_process, wait_until

USER, PASSWORD, REALM = "admin", "p:w", "cam"

_CONFIGURATION = """
server.document-root = "{folder}/files"
server.port = {port}
server.bind = "127.0.0.1"
server.modules = ("mod_auth", "mod_authn_file")
auth.backend = "htdigest"
auth.backend.htdigest.userfile = "{folder}/users"
auth.require = (
    "/md5" => ("method" => "digest", "algorithm" => "MD5", "realm" => "{realm}", "require" => "valid-user"),
    "/sha256" => ("method" => "digest", "algorithm" => "SHA-256", "realm" => "{realm}", "require" => "valid-user"),
    "/both" => ("method" => "digest", "algorithm" => "SHA-256|MD5", "realm" => "{realm}", "require" => "valid-user"),
)
"""


@contextlib.contextmanager
def digest_server() -> Iterator[str]:
    """Its URL. `/md5/file`, `/sha256/file` and `/both/file` are "picture" for USER and PASSWORD."""
    command = programs.path("lighttpd")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pepperpy-lighttpd-")))
        [port] = stack.enter_context(reserved_ports(1))
        for name in ("md5", "sha256", "both"):
            (folder / "files" / name).mkdir(parents=True)
            (folder / "files" / name / "file").write_text("picture")
        secret = f"{USER}:{REALM}:{PASSWORD}".encode()
        lines = [f"{USER}:{REALM}:{hashlib.new(name, secret).hexdigest()}\n" for name in ("md5", "sha256")]
        (folder / "users").write_text("".join(lines))
        (folder / "conf").write_text(_CONFIGURATION.format(folder=folder, port=port, realm=REALM))
        output = folder / "output"
        stack.enter_context(server_process([command, "-D", "-f", folder / "conf"], output))

        def started() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        wait_until(started, output)
        yield f"http://127.0.0.1:{port}"

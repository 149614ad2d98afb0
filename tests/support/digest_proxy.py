"""A proxy by hand that wants a digest, or Basic, and is as strict as squid: a nonce must be counted upwards."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

USER, PASSWORD = "proxy-user", "proxy:secret"
FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')


class DigestProxy:
    """What it has seen is in `seen`: the method, the scheme of Proxy-Authorization, and the status that it answered.

    Attributes:
        url: With user and password.
        user, password: Those that it accepts.
        uses: How often it takes one nonce.
        asks_for: The scheme of its challenge.
        nonce: Of all its challenges, whose uses it does not count; None: each has another.
        together: So many first requests are refused at once, when all have come.
    """

    def __init__(self) -> None:
        self.url = ""
        self.user, self.password = USER, PASSWORD
        self.uses = 1000
        self.asks_for = "Digest"
        self.nonce: str | None = None
        self.together = asyncio.Barrier(1)
        self.seen: list[tuple[str, str, int]] = []
        self._counts: dict[str, int] = {}

    def statuses(self, method: str) -> list[int]:
        return [status for seen, _, status in self.seen if seen == method]

    def _accepts(self, method: str, target: str, authorization: str) -> bool:
        if self.asks_for == "Basic":
            return authorization == "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()
        had = {name: quoted or token for name, quoted, token in FIELD.findall(authorization)}
        if not authorization.startswith("Digest ") or had.get("uri") != target or had.get("username") != self.user:
            return False
        nonce, count = had["nonce"], int(had["nc"], 16)
        if self.nonce is None and not self._counts.get(nonce, self.uses) < count <= self.uses:
            return False
        secret = self._hash(self.user, "our proxy", self.password)
        right = self._hash(secret, nonce, had["nc"], had["cnonce"], "auth", self._hash(method, target))
        if had["response"] == right:
            self._counts[nonce] = count
        return had["response"] == right

    def _hash(self, *parts: str) -> str:
        return hashlib.sha256(":".join(parts).encode()).hexdigest()

    def _challenge(self, authorization: str) -> bytes:
        nonce = self.nonce or f"n{len(self._counts)}"
        self._counts.setdefault(nonce, 0)
        known = re.search(r'nonce="(n\d+)"', authorization)
        stale = ", stale=true" if known and self._counts.get(known[1], 0) else ""
        challenge = f'{self.asks_for} realm="our proxy", nonce="{nonce}", qop="auth", algorithm=SHA-256{stale}'
        return f"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: {challenge}\r\nContent-Length: 2\r\n\r\nno".encode()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                authorization = fields.get("proxy-authorization", "")
                accepted = self._accepts(method, target, authorization)
                self.seen.append((method, authorization.partition(" ")[0], 200 if accepted else 407))
                if accepted:
                    await self._pass_on(method, target, head, body, reader, writer)
                    return
                if authorization.startswith("Basic "):
                    await self.together.wait()
                writer.write(self._challenge(authorization))

    async def _pass_on(
        self,
        method: str,
        target: str,
        head: list[str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        behind, to_server = await asyncio.open_connection(url.hostname, url.port)
        with contextlib.closing(to_server):
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Go on\r\n\r\n")
                await asyncio.gather(_copy(reader, to_server), _copy(behind, writer))
                return
            lines = [line for line in head[1:] if line and not line.lower().startswith(("proxy-", "connection"))]
            path = f"{url.path}?{url.query}" if url.query else url.path
            to_server.write("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body)
            answer = await behind.readuntil(b"\r\n\r\n")
            size = int(answer.lower().partition(b"content-length:")[2].split()[0])
            writer.write(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + await behind.readexactly(size))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def digest_proxy(tls: ssl.SSLContext | None = None) -> AsyncIterator[DigestProxy]:
    proxy = DigestProxy()
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await proxy.handle(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    scheme, host = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
    proxy.url = f"{scheme}://{USER}:proxy%3Asecret@{host}:{port}"
    try:
        yield proxy
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

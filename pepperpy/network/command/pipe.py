"""`tcp`: standard input and output over one connection, plain or TLS, as text or in hex."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import re
import ssl
import sys
from collections.abc import Iterator
from typing import Any

from pepperpy.network.checks import check_seconds
from pepperpy.network.command.terminal import Output, say
from pepperpy.network.config import NetworkConfig
from pepperpy.network.daemon_threads import DaemonThreads
from pepperpy.network.errors import NetworkError
from pepperpy.network.tcp.client import NetworkClient, link_of
from pepperpy.network.tls_config import TLSConfig

NAME = "tcp"
HELP = "standard input and output over one connection"
DESCRIPTION = """\
Sends standard input, and writes what comes: as it is into a pipe, escaped on a terminal. It ends with the peer's
stream, or after --wait seconds of silence behind the end of the input."""

_IN_HEX = 16  # bytes in a line of --hex


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, and how."""
    add = parser.add_argument
    add("place", metavar="PLACE", help="HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix:PATH")
    add("--tls", action="store_true", help="speak TLS, as with tls://")
    add("-k", "--insecure", action="store_true", help="check no certificate: anybody can pose as the server")
    add("--ca-file", metavar="FILE", help="authorities to trust, in PEM")
    add("--cert", metavar="FILE", help="certificate and key of this side, in PEM")
    add("--server-name", metavar="NAME", help="the name that the certificate must have; default: the host")
    add("--alpn", action="append", default=[], metavar="NAME", help="a protocol to offer; may be given several times")
    add("--certificate", action="store_true", help="show version, cipher and certificate of TLS, and leave")
    add("--hex", action="store_true", help="input and output are in hex")
    add("--crlf", action="store_true", help="send each line with CR LF")
    add("--proxy", metavar="URL")
    add("--timeout", type=float, default=10.0, metavar="S", help="seconds to connect; default: 10")
    add("--wait", type=seconds, default=5.0, metavar="S", help="seconds, or none for ever; default: 5")


def seconds(text: str) -> float | None:
    """Seconds, or None for "none"."""
    if text == "none":
        return None
    check_seconds("--wait", found := float(text), zero=True)
    return found


async def run(options: argparse.Namespace) -> int:
    """Connect, and pass on in both directions. Returns the exit code."""
    config = config_of(options)
    if options.certificate and not config.tls:
        raise ValueError("--certificate goes with TLS: --tls or tls://")
    async with NetworkClient(config) as client:
        if options.certificate:
            show_certificate(client)
            return 0
        await pass_on(client, options)
    return 0


def config_of(options: argparse.Namespace) -> NetworkConfig:
    """The settings for the place."""
    place = options.place
    settings: dict[str, Any] = {"timeout": options.timeout, "retries": 0, "proxy": options.proxy}
    if place.startswith("unix:"):
        path = place.removeprefix("unix:")
        settings["unix_path"] = path.removeprefix("//")
    else:
        found = re.fullmatch(r"(?:(tcp|tls)://)?(?:\[([^\]]+)\]|([^:/]+)):(\d{1,5})/?", place)
        if found is None:
            raise ValueError("PLACE must be HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix:PATH")
        scheme, in_brackets, host, port = found.groups()
        settings |= {"host": in_brackets or host, "port": int(port)}
        options.tls = options.tls or scheme == "tls"
    if options.tls:
        settings["tls"] = TLSConfig(
            verify=not options.insecure,
            ca_file=options.ca_file,
            client_cert=options.cert,
            server_hostname=options.server_name,
            alpn=tuple(options.alpn),
        )
    return NetworkConfig(**settings)


def show_certificate(client: NetworkClient) -> None:
    """What TLS has agreed on, and the peer's certificate."""
    tls = client.tls
    assert tls is not None
    say(f"version   {tls.version}", f"cipher    {tls.cipher}", f"alpn      {tls.alpn or '-'}")
    say(f"sha256    {hashlib.sha256(tls.peer_certificate).hexdigest()}")
    details = link_of(client).protocol.extra_info("ssl_object").getpeercert()
    # Python reads only a certificate that was checked.
    for name in ("subject", "issuer"):
        if words := details and details.get(name):
            say(f"{name:9} {', '.join(f'{key}={value}' for ((key, value), *_) in words)}")
    for kind, value in (details or {}).get("subjectAltName", ()):
        say(f"name      {kind}:{value}")
    for name, title in (("notBefore", "from"), ("notAfter", "until")):
        if details and name in details:
            say(f"{title:9} {details[name]}")
    say(ssl.DER_cert_to_PEM_cert(tls.peer_certificate).rstrip())


async def pass_on(client: NetworkClient, options: argparse.Namespace) -> None:
    """Both directions, until the peer ends its stream, or is silent after the end of the input."""
    ended = asyncio.Event()
    sending = asyncio.create_task(send_input(client, options, ended))
    try:
        # If sending fails because the connection is lost, receiving writes what the peer has sent before, and raises.
        await receive(client, options, Output(), ended)
        if sending.done():
            sending.result()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def send_input(client: NetworkClient, options: argparse.Namespace, ended: asyncio.Event) -> None:
    """Send standard input, and set `ended` behind it."""
    # In a thread, because standard input may be a file or a terminal, which no loop can wait for. The program ends
    # without waiting for it.
    thread = DaemonThreads("pepperpy-network input", 1)
    loop = asyncio.get_running_loop()
    input_ = pieces(options)
    try:
        while (data := await loop.run_in_executor(thread, next, input_, None)) is not None:
            await client.send(data, timeout=None)
        if not options.tls:
            await client.send_eof()
    except Exception as error:
        if not isinstance(error, NetworkError):
            # The input is wrong: no answer is waited for.
            options.wait = 0.0
        raise
    finally:
        ended.set()


async def receive(client: NetworkClient, options: argparse.Namespace, output: Output, ended: asyncio.Event) -> None:
    """Write what comes."""
    while True:
        data = await next_piece(client, options, ended)
        if not data:
            output.write(b"", final=True)
            return
        if options.hex:
            lines = (data[start : start + _IN_HEX].hex(" ") for start in range(0, len(data), _IN_HEX))
            output.write("".join(f"{line}\n" for line in lines).encode())
        else:
            output.write(data)


async def next_piece(client: NetworkClient, options: argparse.Namespace, ended: asyncio.Event) -> bytes:
    """The next bytes; none at the end, or after `options.wait` seconds of silence behind the end of the input."""
    receiving = asyncio.create_task(client.receive(timeout=None))
    ending = asyncio.create_task(ended.wait())
    try:
        await asyncio.wait([receiving, ending], return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            await asyncio.wait([receiving], timeout=options.wait)
        return receiving.result() if receiving.done() else b""
    finally:
        for task in (receiving, ending):
            task.cancel()
        await asyncio.wait([receiving, ending])


def pieces(options: argparse.Namespace) -> Iterator[bytes]:
    """The bytes to send: standard input as it comes; in hex whole lines."""
    if sys.stdin is None:  # the shell has closed it: <&-
        return
    rest = b""
    # os.read() holds no lock. Python aborts if it ends while a thread holds the one of sys.stdin.
    for read in iter(lambda: os.read(sys.stdin.fileno(), 65536), b""):
        chunk = rest + read
        cut = len(chunk)
        if options.hex:
            cut = chunk.rfind(b"\n") + 1
        elif options.crlf and chunk.endswith(b"\r"):
            cut -= 1
        rest = chunk[cut:]
        if cut:
            yield from_input(chunk[:cut], options)
    if rest:
        yield from_input(rest, options)


def from_input(data: bytes, options: argparse.Namespace) -> bytes:
    """What a piece of the input stands for."""
    if options.hex:
        try:
            return bytes.fromhex(data.decode("ascii"))
        except ValueError:
            raise ValueError("the input must be hex, such as 48 65 6c 6c 6f") from None
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") if options.crlf else data

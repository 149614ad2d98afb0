"""`get`: one HTTP request, or a download with a progress bar that resumes where it breaks off."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pepperpy.network.command.terminal import Output, ProgressBar, complain, say
from pepperpy.network.tls_config import TLSConfig

NAME = "get"
HELP = "one HTTP request, or a download"
DESCRIPTION = """\
Writes the body of the answer to standard output: as it comes into a pipe, escaped on a terminal. With --output it is a
download: the file appears when it is complete, and a download that breaks off resumes where the server can do that."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of one request."""
    add = parser.add_argument
    add("url", metavar="URL", help="http:// or https://")
    add("-X", "--method", help="default: GET, or POST with --json or --data")
    add("-H", "--header", action="append", default=[], metavar="NAME:VALUE", help="may be given several times")
    body = parser.add_mutually_exclusive_group()
    body.add_argument("--json", metavar="TEXT", help="a JSON value to send")
    body.add_argument("-d", "--data", metavar="TEXT", help="text to send, or @FILE")
    add("-o", "--output", metavar="FILE", help="put the body there when it is complete")
    add("--resume", action="store_true", help="keep what came if it breaks off, and go on the next time; with --output")
    add("--checksum", metavar="sha256:HEX", help="refuse a file with another one; with --output")
    add("-i", "--include", action="store_true", help="write the head of the answer, too")
    add("-L", "--location", action="store_true", help="follow redirects")
    add("--timeout", type=float, default=60.0, metavar="S", help="seconds for an answer to begin; default: 60")
    add("--retries", type=int, default=2, metavar="N", help="further attempts; default: 2")
    add("--proxy", metavar="URL")
    add("--ca-file", metavar="FILE", help="authorities to trust, in PEM")
    add("-k", "--insecure", action="store_true", help="check no certificate: anybody can pose as the server")


async def run(options: argparse.Namespace) -> int:
    """Send it. Returns the exit code."""
    # Imported here: the other commands need no HTTP.
    from pepperpy.network.http.client import HTTPClient
    from pepperpy.network.http.config import HTTPConfig

    config = HTTPConfig(
        retries=options.retries,
        connect_timeout=min(10.0, options.timeout),
        read_timeout=options.timeout,
        timeout=None,
        raise_for_status=False,
        verify_ssl=not options.insecure,
        tls=True if options.ca_file is None else TLSConfig(ca_file=options.ca_file),
    )
    async with HTTPClient(config) as client:
        if options.output is not None:
            return await download(client, options)
        return await show(client, options)


async def show(client: Any, options: argparse.Namespace) -> int:
    """Write the answer to standard output."""
    if options.checksum is not None or options.resume:
        raise ValueError("--checksum and --resume go with --output")
    output = Output()
    async with client.stream(method_of(options), options.url, **arguments_of(options)) as stream:
        if options.include:
            say(
                f"HTTP {stream.status} {stream.reason}", *(f"{name}: {value}" for name, value in stream.headers.items())
            )
            say("")
        async for chunk in stream.chunks():
            output.write(chunk)
        output.write(b"", final=True)
        if stream.status >= 400:
            complain(f"status {stream.status} {stream.reason}")
            return 9
    return 0


async def download(client: Any, options: argparse.Namespace) -> int:
    """Put the body into a file."""
    if method_of(options) != "GET" or options.include:
        raise ValueError("--output is a GET: leave out --method, --json, --data and --include")
    bar = ProgressBar(options.output)
    try:
        result = await client.download(
            options.url,
            options.output,
            checksum=options.checksum,
            resume=options.resume,
            progress=bar,
            timeout=None,
            **arguments_of(options),
        )
    finally:
        bar.end()
    resumed = f", resumed {result.resumed} times" if result.resumed else ""
    say(f"{options.output}: {result.size:,} bytes{resumed}")
    return 0


def method_of(options: argparse.Namespace) -> str:
    """The method that was given, or the one that fits the body."""
    default = "GET" if options.json is None and options.data is None else "POST"
    return str(options.method or default).upper()


def arguments_of(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the request."""
    headers: dict[str, str] = {}
    for line in options.header:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError("--header must be NAME:VALUE")
        name, value = name.strip(), value.strip()
        # RFC 9110, section 5.3: several values of one name.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    found: dict[str, Any] = {"headers": headers, "proxy": options.proxy, "allow_redirects": options.location}
    if options.json is not None:
        try:
            found["json"] = json.loads(options.json)
        except ValueError as error:
            raise ValueError(f"--json is no JSON: {error}") from None
    elif options.data is not None:
        if options.data.startswith("@"):
            with open(options.data[1:], "rb") as file:
                found["data"] = file.read()
        else:
            found["data"] = options.data.encode()
    return found

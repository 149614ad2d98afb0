"""`doctor`: what is installed, what is missing, what is slow and what to do about it."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import ssl
import sys
import time
from pathlib import Path

from pepperpy.network._core import stream_protocol
from pepperpy.network.command.terminal import say
from pepperpy.network.config import NetworkConfig
from pepperpy.network.tcp.client import NetworkClient
from pepperpy.network.tcp.serve import serve

NAME = "doctor"
HELP = "what is installed, what is missing, what is slow"
DESCRIPTION = "Shows what this package runs on. Exit code 0: it works; 1: something does not. A hint is no fault."

ROUND_TRIPS = 200

# Module, what it is for, what is slow or missing without it, and what to install. The speedups come first.
_OPTIONAL = (
    ("uvloop", "the faster event loop", "slow: each turn of asyncio's own loop costs more", "uvloop"),
    ("aiofastnet", "TLS of TCP connections in C", "slow: TLS costs a third more without it", "aiofastnet"),
    ("msgspec", "fast JSON, also into types; the codec MsgPack", "slow: JSON by the standard library", "msgspec"),
    ("python_socks", "SOCKS proxies", "SOCKS proxies raise an error", "python-socks[asyncio]"),
    ("brotli", "bodies compressed by Brotli", "servers are not asked for Brotli", "brotli"),
    ("backports.zstd", "bodies compressed by zstd", "servers are not asked for zstd", "backports.zstd"),
    ("publicsuffixlist", "whose domains are nobody's", "one may set cookies for all of co.uk", "publicsuffixlist"),
    ("truststore", "the authorities that the system trusts", "system_trust raises an error", "truststore"),
)
_REQUIRED = ("aiohttp", "httptools", "webencodings")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


async def run(options: argparse.Namespace) -> int:
    """Show all of it. Returns the exit code."""
    import platform  # here, as below: the other commands start without it

    faults: list[str] = []
    hints: list[str] = []
    say(f"pepperpy-network {version_of('pepperpy-network') or 'of unknown version'} in {Path(__file__).parents[1]}")
    row("Python", f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}")
    row("OpenSSL", ssl.OPENSSL_VERSION)
    for name in _REQUIRED:
        found = version_of(name)
        row(name, found or "missing")
        if found is None:
            faults.append(f"{name} is missing, which this package needs: pip install {name}")
    look_at_core(faults, hints)
    look_at_namespace(faults)
    say("optional:")
    for module, use, without, package in _OPTIONAL:
        look_at_optional(module, use, without, package, hints)
    await look_at_loopback(faults)
    for title, lines in (("faults:", faults), ("hints:", hints)):
        say(*([title, *(f"  - {line}" for line in lines)] if lines else []))
    say("It works." if not faults else f"{len(faults)} faults.")
    return 1 if faults else 0


def row(name: str, value: str) -> None:
    """One line of the table."""
    say(f"  {name:16} {value}")


def version_of(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def look_at_core(faults: list[str], hints: list[str]) -> None:
    """Whether the compiled modules are there, and which file that is."""
    file = str(getattr(stream_protocol, "__file__", ""))
    row("core", file)
    if file.endswith(".py"):
        faults.append("the core is not compiled: reinstall with a C compiler")
    if sys.flags.dev_mode or sys.flags.optimize < 0:
        hints.append("slow: Python runs in development mode (-X dev, PYTHONDEVMODE)")
    if sys.gettrace() is not None or sys.getprofile() is not None:
        hints.append("slow: a debugger, a profiler or coverage follows each line")


def look_at_namespace(faults: list[str]) -> None:
    """Whose the name pepperpy is."""
    from pepperpy.network.neighbours import namespace_owner

    owner = namespace_owner()
    row("namespace", "shared by all distributions" if owner is None else f"owned by {owner}")
    if owner is not None:
        faults.append(f"pepperpy belongs to {owner}; beside it, imports win or lose by chance (docs/neighbours.md)")


def look_at_optional(module: str, use: str, without: str, package: str, hints: list[str]) -> None:
    """Whether an optional package can be imported."""
    if not needed(module):
        return
    try:
        importlib.import_module(module)
    except ImportError as error:
        row(module, f"no     {use}")
        reason = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        hints.append(f"{module}: {without}; pip install '{package}'{reason}")
    else:
        row(module, f"{version_of(package.partition('[')[0]) or 'yes':6} {use}")


def needed(module: str) -> bool:
    """Whether this system has any use for the package."""
    if module == "backports.zstd":
        return sys.version_info < (3, 14)
    if module == "truststore":
        return sys.platform in ("darwin", "win32")
    return module != "uvloop" or sys.platform != "win32"


async def look_at_loopback(faults: list[str]) -> None:
    """Whether two sides talk to each other."""

    async def echo(client: NetworkClient) -> None:
        async for line in client.lines():
            await client.send(line)

    try:
        async with serve(echo) as server, NetworkClient(NetworkConfig("127.0.0.1", server.port)) as client:
            started = time.perf_counter()
            for _ in range(ROUND_TRIPS):
                await client.send(b"are you there?\n")
                await client.receive_line()
            each = (time.perf_counter() - started) / ROUND_TRIPS
    except Exception as error:
        row("loopback", "fails")
        faults.append(f"no connection to 127.0.0.1: {error}")
    else:
        row("loopback", f"{1e6 * each:.0f} us for a round trip on {type(asyncio.get_running_loop()).__module__}")

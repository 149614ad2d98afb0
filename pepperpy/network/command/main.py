"""The arguments of the command line, and the exit code of each kind of error."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from pepperpy.network.command import bench, demo, doctor, get, pipe
from pepperpy.network.command.terminal import complain
from pepperpy.network.errors import (
    ConnectError,
    ConnectionLostError,
    HTTPStatusError,
    IncompleteReadError,
    InvalidRequestError,
    NetworkError,
    NetworkTimeoutError,
    ProxyError,
    TLSError,
    UsageError,
)

# The first that fits decides.
_CODES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int], ...] = (
    (HTTPStatusError, 9),
    (ProxyError, 5),
    (TLSError, 4),
    (NetworkTimeoutError, 6),
    (ConnectError, 3),
    ((ConnectionLostError, IncompleteReadError), 7),
    # A file of this machine: a NetworkError as well where HTTP writes it.
    ((FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError), 10),
    ((InvalidRequestError, UsageError), 2),
    (NetworkError, 8),
    (OSError, 10),
    ((ValueError, TypeError), 2),
)

EXIT_CODES = """\
exit codes:
  0    done; doctor: all is well
  1    doctor: something does not work
  2    an argument cannot be used
  3    no connection: unknown name, refused, unreachable
  4    TLS: no handshake, or a certificate that is refused
  5    the proxy
  6    a time limit passed
  7    the connection was lost
  8    the peer broke the protocol, sent too much, or a wrong checksum
  9    HTTP: a status of 400 or above
  10   a file of this machine
  130  Ctrl-C
  141  nobody reads the output any more
"""


def code_of(error: Exception) -> int | None:
    """The exit code for an error; None for a bug."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    options = _parser().parse_args(arguments)
    if sys.stdout is None:  # the shell has closed it: >&-
        complain("standard output is closed")
        return 10
    # A shell that runs commands in the background has SIGINT ignored, and that is inherited; then it stays so.
    try:
        code: int = asyncio.run(options.run(options))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Or Python would complain of it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + getattr(signal, "SIGPIPE", 13)
    except Exception as error:
        code_or_bug = code_of(error)
        if code_or_bug is None:
            raise
        complain(str(error) or type(error).__name__)
        return code_or_bug


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pepperpy-network",
        description="TCP and HTTP from the command line, by the Python package pepperpy.network.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version of this package")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (doctor, demo, bench, get, pipe):
        command = commands.add_parser(
            module.NAME,
            help=module.HELP,
            description=module.DESCRIPTION,
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


class ShowVersion(argparse.Action):
    """The version of this package, as it is installed."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> None:
        from importlib.metadata import PackageNotFoundError, version  # here: it loads zipfile, email and more

        try:
            found = version("pepperpy-network")
        except PackageNotFoundError:
            found = "unknown (not installed as a distribution)"
        print(f"{parser.prog} {found}")
        parser.exit()

"""`LoggedTransport`: writes the heads of requests and answers to the wire log, without what is secret in them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.cookie_jar import CookieJar
from pepperpy.network.http.redact import is_secret_header, redact_url
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import Answer, Transport, Trip, WireError
from pepperpy.network.printable import printable
from pepperpy.network.wire_log import MAX_LINE, Logger, next_number, write

# Switches the wire log on for each client that is opened. "", "0": off.
VARIABLE = "PEPPERPY_NETWORK_WIRE_LOG"

Make = Callable[[HTTPConfig, CookieJar], Transport]


def logged(make: Make, config: HTTPConfig) -> Make:
    """What makes the transport of a client: `make`, or with a wire log around it if there is one."""
    log = config.wire_log or _log_of_the_environment()
    if log is None:
        return make
    return lambda config, jar: LoggedTransport(make(config, jar), log, config.secret_headers)


def _log_of_the_environment() -> logging.Logger | None:
    if os.environ.get(VARIABLE, "") in ("", "0"):
        return None
    log = logging.getLogger("pepperpy.network.wire")
    log.setLevel(logging.DEBUG)
    if not log.handlers and not logging.getLogger().handlers:
        # The program writes no log, and whoever has set the variable wants to see something.
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
        log.addHandler(handler)
    return log


class LoggedTransport:
    """A `Transport` that another one carries out."""

    def __init__(self, carrier: Transport, log: Logger, secret_names: Collection[str]) -> None:
        self._carrier = carrier
        self._log = log
        self._secret_names = secret_names

    @property
    def default_headers(self) -> Mapping[str, str]:
        return self._carrier.default_headers

    @property
    def session(self) -> Any:
        return self._carrier.session

    @property
    def open_connections(self) -> int:
        return self._carrier.open_connections

    @property
    def discarded(self) -> int:
        return self._carrier.discarded

    async def exchange(self, request: Request, trip: Trip) -> Answer:
        if not self._log.isEnabledFor(logging.DEBUG):
            return await self._carrier.exchange(request, trip)
        number = next_number()
        self._write(number, f"> {request.method} {redact_url(str(request.url))} HTTP/1.1")
        self._write_headers(number, ">", request.headers)
        try:
            answer = await self._carrier.exchange(request, trip)
        except WireError as error:
            self._write(number, f"< {error.kind}: {error.text}")
            raise
        self._write(number, f"< HTTP/{answer.version} {answer.status} {answer.reason}")
        self._write_headers(number, "<", answer.headers)
        return answer

    def _write_headers(self, number: int, direction: str, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            if is_secret_header(name, self._secret_names):
                value = "***"
            elif any(mark in value for mark in ("://", "?", "@", "#")):
                # Location, Referer, Link: a URL may hold a token.
                value = redact_url(value)
            self._write(number, f"{direction} {name}: {value}")

    def _write(self, number: int, line: str) -> None:
        write(self._log, number, printable(line, MAX_LINE))

    async def close(self, seconds: float) -> None:
        await self._carrier.close(seconds)

    def abandon(self) -> None:
        self._carrier.abandon()

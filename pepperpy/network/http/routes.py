"""Which proxy a request goes through, where that depends on its URL; and what else the environment says to it."""

from __future__ import annotations

import logging
import netrc
import os
import sys
from pathlib import Path

from yarl import URL

from pepperpy.network.errors import InvalidRequestError
from pepperpy.network.http.auth import BasicAuth
from pepperpy.network.http.call import Call
from pepperpy.network.http.checks import check_proxy
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.proxy_rules import no_proxy_of, read_environment

logger = logging.getLogger("pepperpy.network.http")


class Routes:
    """The proxies of one open client, as the configuration and the environment have them when it opens."""

    def __init__(self, config: HTTPConfig) -> None:
        self._proxy = config.proxy
        self._no_proxy = no_proxy_of(config.no_proxy)
        self._environment = read_environment() if config.trust_env and config.proxy is None else None

    def proxy_for(self, url: URL) -> str | None:
        """The proxy of a request to this URL; None: it goes directly. That of a redirect may be another one.

        Raises:
            ValueError: A variable of the environment names no proxy that can be used. The message shows no secret.
            UsageError: It is one of SOCKS, and python-socks is not installed.
        """
        host, port = url.raw_host or "", url.port or 0
        if self._no_proxy.covers(host, port):
            return None
        if self._environment is None:
            return self._proxy
        return self._environment.proxy_for(url.scheme, host, port, check_proxy)


def routes_of(config: HTTPConfig) -> Routes | None:
    """None: all requests go by way of `config.proxy`, or directly."""
    return Routes(config) if config.trust_env or (config.proxy is not None and config.no_proxy) else None


class Credentials:
    """User names and passwords of ~/.netrc, or of the file that NETRC names; read once."""

    def __init__(self) -> None:
        self._entries: netrc.netrc | None = None
        named = os.environ.get("NETRC")
        try:
            file = Path(named) if named else Path.home() / ("_netrc" if sys.platform == "win32" else ".netrc")
            self._entries = netrc.netrc(file)
        except netrc.NetrcParseError as error:
            # Without its text, which may quote a password.
            logger.warning("%s, line %s, cannot be read as a netrc file; it is ignored", error.filename, error.lineno)
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            # RuntimeError: nobody knows where home is. A file that nobody has named need not be there.
            if named or not isinstance(error, (FileNotFoundError, RuntimeError)):
                logger.warning("the netrc file cannot be read: %s", getattr(error, "strerror", None) or error)

    def give(self, call: Call) -> None:
        """Set the `auth` of a call that has none, from the entry of its host or the `default` one."""
        found = None if self._entries is None else self._entries.authenticators(call.host)
        if found is None:
            return
        if any("authorization" in map(str.lower, names) for names in (call.dropped_headers, call.headers or ())):
            return
        if any(name.lower() == "authorization" for name in call.config.headers):
            return
        login, account, password = found
        try:
            call.auth = BasicAuth(login or account or "", password or "")
            call.auth_of_url = True
        except ValueError as error:
            raise call.error(InvalidRequestError, f"the netrc file has an entry that cannot be sent: {error}") from None

"""From the arguments of a request to a `Call`. What can be refused is refused here, before a byte is sent."""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Mapping
from functools import lru_cache
from time import monotonic
from typing import Any

from multidict import CIMultiDict
from yarl import URL

from pepperpy.network._core.record import copy_of
from pepperpy.network.checks import check_bool, check_int, check_size, check_timeout
from pepperpy.network.errors import InvalidRequestError, also
from pepperpy.network.http.aiohttp_types import aiohttp, is_client_timeout
from pepperpy.network.http.arguments import unknown_argument
from pepperpy.network.http.auth import BasicAuth, as_auth
from pepperpy.network.http.body import make_body
from pepperpy.network.http.call import Call
from pepperpy.network.http.checks import (
    Params,
    check_cookies,
    check_headers,
    check_limits,
    check_method,
    check_middlewares,
    check_proxy,
    check_url,
    check_verify,
    is_http,
    param_pairs,
    param_text,
    parse_url,
    plain,
    token_text,
    url_text,
)
from pepperpy.network.http.conditional import condition_of
from pepperpy.network.http.config import SETTINGS, HTTPConfig
from pepperpy.network.http.engine import logger
from pepperpy.network.http.interceptors import show_responses
from pepperpy.network.http.middleware import split
from pepperpy.network.http.options import ARGUMENTS, Proxy, RequestOptions
from pepperpy.network.http.redact import redact_url
from pepperpy.network.http.sources import path_and_reason
from pepperpy.network.http.timeouts import limits_of, total_of
from pepperpy.network.json_codec import default_codec
from pepperpy.network.tls_config import tls_settings


class Prepare:
    """Makes the calls of one client, and holds what they share."""

    def __init__(self, config: HTTPConfig) -> None:
        self.config = config
        # The engine looks after the total, the transport after the rest.
        codec = config.json_codec or default_codec()
        self._usual = Call(config, codec, total_of(config.timeout), limits_of(config, config.timeout))
        middlewares = [*show_responses(config.interceptors), *config.middlewares]
        self._usual.middlewares, self._usual.exchange_middlewares = split(middlewares)
        self._base_url = config.base_url
        self._origin = None
        if config.base_url is not None:
            base = parse_url("base_url", config.base_url)
            self._base_url = str(base)
            self._origin = base.origin()
        tls = tls_settings(config.tls, config.verify_ssl)
        self._pinned = bool(tls.pins)
        self._warned = not tls.verify and not self._pinned
        if self._warned:
            logger.warning("certificates are not verified: HTTPConfig.verify_ssl is False; said once for this client")

    def call(
        self,
        method: str,
        url: str | URL,
        params: Params | None,
        headers: Mapping[str, str | None] | None,
        proxy: Proxy,
        timeout: aiohttp.ClientTimeout | float | None,
        verify_ssl: bool,
        json: Any,
        options: RequestOptions,
        *,
        whole: bool = True,
    ) -> Call:
        """The call for these arguments. If it is not `whole`, the caller reads its body.

        Raises:
            InvalidRequestError: A value that cannot be sent, or a file that cannot be read, and then FileNotFoundError,
                PermissionError, ... as well. Nothing was sent.
            TypeError: An argument of a wrong type.
        """
        config = self.config
        try:
            # The common ones are spared a look at each character.
            method = (_METHODS.get(method) if isinstance(method, str) else None) or check_method(method)
            target = _absolute(url) if type(url) is str and self._base_url is None else self._target(url)
            call = copy_of(self._usual)
            call.started_at = monotonic()
            call.method = method
            call.url, call.host, credentials = target
            if not whole:
                # Only if one is given: aiohttp's 5 minutes ended downloads (aiohttp#2249).
                call.total = None
            if config.deadline is not None:
                call.limit_by(config.deadline)
            if self._origin is not None and call.auth is not None and call.url.origin() != self._origin:
                call.auth = None
            if params is not None or config.params:
                call.params = self._merged(params)
            if headers is not None:
                self._set_headers(call, headers)
            if proxy is not None:
                if config.unix_path is not None and proxy is not False:
                    raise ValueError("proxy must be left out: HTTPConfig.unix_path says where every request goes")
                call.proxy = None if proxy is False else check_proxy(proxy)
                call.routed = False
            if timeout is not None:
                self._set_timeout(call, timeout)
            if verify_ssl is not True:
                self._set_unverified(call, verify_ssl)
            if options:
                self._set_options(call, options)
            if config.idempotency_key or "idempotency_key" in options:
                self._set_idempotency_key(call, options.get("idempotency_key"))
            if json is not None or options:
                self._set_body(call, json, options)
                if (known := options.get("if_changed_since")) is not None:
                    call.condition = condition_of(known, method, call.whole_url, call.headers)
            if call.headers or call.dropped_headers:
                _check_framing(call)
            own = call.headers is not None and "Authorization" in call.headers
            if credentials is not None:
                if own or options.get("auth") is not None:
                    raise ValueError("url has a user or password, and the request has other credentials as well")
                call.auth = credentials
                call.auth_of_url = True
            elif call.auth is not None and (own or _drops(call, "authorization")):
                call.auth = None
        except ValueError as error:
            if isinstance(error, InvalidRequestError) and error.details:
                raise
            raise _refused(method, url, str(error)) from error.__cause__
        except OSError as error:
            raise _refused(method, url, f"cannot read {path_and_reason(error, error.filename)}", error) from error
        return call

    def _target(self, url: str | URL) -> Target:
        if isinstance(url, URL):
            if url.absolute or self._base_url is None:
                return _as_it_is(url)
            return _as_it_is(URL(self._joined(self._base_url, str(url)), encoded=True))
        if not isinstance(url, str):
            raise TypeError(f"url must be a str or yarl.URL, not {type(url).__name__}")
        url = plain(url)
        if self._base_url is None or _SCHEME.match(url):
            return _absolute(url)
        return _absolute(self._joined(self._base_url, url))

    def _joined(self, base: str, url: str) -> str:
        if url.startswith("?") or not url:
            return base + url
        return f"{base.rstrip('/')}/{url.lstrip('/')}"

    def _merged(self, params: Params | None) -> list[tuple[str, str]]:
        own = [] if params is None else param_pairs(params)
        replaced = {name for name, _ in own}
        pairs: list[tuple[str, str]] = []
        for name, value in [*(pair for pair in param_pairs(self.config.params) if pair[0] not in replaced), *own]:
            values = value if isinstance(value, (list, tuple)) else (value,)
            pairs.extend((name, param_text(name, item)) for item in values if item is not None)
        return pairs

    def _set_headers(self, call: Call, headers: Mapping[str, str | None]) -> None:
        checked = check_headers("headers", headers, none=True)
        call.dropped_headers = [name for name, value in checked.items() if value is None]
        call.headers = CIMultiDict((name, value) for name, value in checked.items() if value is not None)

    def _set_timeout(self, call: Call, timeout: aiohttp.ClientTimeout | float) -> None:
        check_limits("timeout", timeout)
        if not is_client_timeout(timeout):
            call.total = timeout
            return
        if timeout.total is not None:
            call.total = total_of(timeout)
        call.limits = limits_of(self.config, timeout)

    def _set_unverified(self, call: Call, verify_ssl: object) -> None:
        check_verify(verify_ssl)
        if not self._warned and not self._pinned:
            self._warned = True
            logger.warning("certificates are not verified for %s; said once for this client", call.host)
        call.verify = False

    def _set_options(self, call: Call, options: RequestOptions) -> None:
        if unknown := options.keys() - RequestOptions.__annotations__.keys():
            raise unknown_argument(sorted(unknown)[0], (*RequestOptions.__annotations__, *ARGUMENTS), SETTINGS)
        if "deadline" in options:
            if (deadline := options["deadline"]) is not None:
                check_timeout("deadline", deadline, zero=False)
            call.limit_by(deadline)
        if "read_timeout" in options:
            check_timeout("read_timeout", options["read_timeout"], zero=False)
            call.limits = dataclasses.replace(call.limits, read=options["read_timeout"])
        if "auth" in options:
            call.auth = as_auth(options["auth"])
        if "retries" in options:
            check_int("retries", options["retries"], 0)
            call.retries = options["retries"]
        for name in ("allow_redirects", "decompress", "raise_for_status"):
            check_bool(name, options.get(name, True))
        if "raise_for_status" in options:
            call.raise_for_status = options["raise_for_status"]
        if "allow_redirects" in options:
            call.follow_redirects = options["allow_redirects"]
        if "decompress" in options:
            call.decompress = options["decompress"]
        if "max_response_size" in options:
            if (max_size := options["max_response_size"]) is not None:
                check_size("max_response_size", max_size)
            call.max_size = max_size
        if "middlewares" in options:
            around, inside = split(check_middlewares("middlewares", options["middlewares"]))
            call.middlewares = (*call.middlewares, *around)
            call.exchange_middlewares = (*call.exchange_middlewares, *inside)
        if (cookies := options.get("cookies")) is not None:
            call.cookies = check_cookies(cookies)

    def _set_idempotency_key(self, call: Call, key: object) -> None:
        """Args: key: The request's own; None: as the client has it."""
        if key is False or (key is None and not (self.config.idempotency_key and call.method in _WITH_KEY)):
            return
        name = self.config.key_header
        if (call.headers is not None and name in call.headers) or _drops(call, name.lower()):
            if key is None:
                return
            raise ValueError(f"headers has {name}, and idempotency_key is given as well")
        if key is None or key is True:
            # Without the quotation marks of draft-ietf-httpapi-idempotency-key-header-07, as Stripe and others have it.
            key = str(uuid.uuid4())
        elif callable(key):
            key = key()
        text = token_text("idempotency_key", key)
        if call.headers is None:
            call.headers = CIMultiDict()
        call.headers[name] = text

    def _set_body(self, call: Call, json: Any, options: RequestOptions) -> None:
        body = make_body(options.get("data"), json, options.get("files"), call.codec, options.get("progress"))
        if body is None:
            return
        call.body = body
        headers = CIMultiDict(body.headers)
        if call.headers is not None:
            headers.update(call.headers)
        call.headers = headers


# The URL of a request, without user info; its host; the user info.
Target = tuple[URL, str, BasicAuth | None]

# What the client-wide setting gives a key to: methods that may do twice what is asked for twice.
_WITH_KEY = frozenset({"POST", "PATCH"})

_METHODS = {name: name for name in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")}


# An absolute URL of another scheme is not a path of the base_url. "users:batch" is one.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://|https?:", re.IGNORECASE)
# Characters that end a URL on the request line, or the line itself.
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")


# Programs request the same URLs again and again. The number is that of yarl's own caches.
@lru_cache(maxsize=512)
def _absolute(url: str) -> Target:
    if not is_http(url):
        raise ValueError("url must start with http:// or https://, or there must be a base_url that it is relative to")
    return _target_of(parse_url("url", url))


def _as_it_is(url: URL) -> Target:
    # With encoded=True, yarl has encoded nothing.
    if found := _UNSENDABLE.search(str(url)):
        raise ValueError(f"url has the character {found.group()!r}, which has to be percent-encoded")
    return _target_of(check_url("url", url))


def _target_of(url: URL) -> Target:
    url, host = url.with_fragment(None), url.raw_host or ""
    if url.raw_user is None and url.raw_password is None:
        return url, host, None
    # Not by aiohttp, which encodes them as Latin-1, and refuses them if the client has an auth.
    return url.with_user(None), host, BasicAuth(url.user or "", url.password or "")


def _drops(call: Call, name: str) -> bool:
    """Args: name: Of a header, in lower case."""
    return name in map(str.lower, call.dropped_headers)


def _check_framing(call: Call) -> None:
    """Refuse headers that would make a server look for the end of the request in another place."""
    headers: Mapping[str, str] = call.headers or {}
    if "Transfer-Encoding" in headers:
        raise ValueError("headers must not have Transfer-Encoding: it follows from the body")
    if call.body is not None:
        for name in call.dropped_headers:
            if name.lower() in ("content-length", "transfer-encoding"):
                raise ValueError(f"headers must not leave out {name!r}: the server would take the body for a request")
    length = headers.get("Content-Length")
    if length is not None:
        size = 0 if call.body is None else call.body.size
        # As long as 2^63 - 1, at most: of a longer one, no part may be compared.
        digits = length.isascii() and length.isdigit() and len(length) < 20
        if not (digits and (size is None or int(length) == size)):
            raise ValueError(f"headers has Content-Length {length[:19]!r}, but the body has {size} bytes")


def _refused(method: object, url: object, why: str, cause: OSError | None = None) -> InvalidRequestError:
    shown = redact_url(url_text(url))
    details = {"method": method, "url": shown, "phase": "prepare", "attempt": 0, "elapsed": 0.0}
    kind = InvalidRequestError if cause is None else also(InvalidRequestError, type(cause))
    return kind(f"{ascii(method)[1:-1]:.50} {shown}: {why}", details, cause)

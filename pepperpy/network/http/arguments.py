"""What to write instead of an argument that there is not: the names that requests, httpx and aiohttp have for it."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type[Any])

_VERIFY = "verify_ssl=False for no check, HTTPConfig(ca_file=...) for an authority of your own"
_CONNECTIONS = "HTTPConfig(max_connections=..., max_connections_per_host=..., keepalive_timeout=...)"
_BODY = "data=... in the request: bytes, str, form fields, a path, a file or an async iterable"

# Names of others -> what to write here.
INSTEAD = {
    "verify": _VERIFY,
    "ssl": _VERIFY,
    "ssl_context": _VERIFY,
    "cafile": "HTTPConfig(ca_file=...)",
    "cert": "HTTPConfig(client_cert=...)",
    "follow_redirects": "allow_redirects=... of a request, HTTPConfig(max_redirects=...) of all",
    "allow_redirects": "allow_redirects=... of a request, HTTPConfig(max_redirects=0) of all",
    "proxies": "proxy=..., one URL for http and https, or HTTPConfig(trust_env=True)",
    "mounts": "proxy=..., one URL for http and https",
    "proxy_auth": "user and password in the proxy's URL: http://user:password@host:port",
    "content": _BODY,
    "body": _BODY,
    "form": _BODY,
    "query": "params=...",
    "json": "request('GET', url, json=...); only methods that usually have a body take json=... themselves",
    "stream": "async with client.stream(method, url) as stream",
    "connect": "connect_timeout=... of HTTPConfig, or timeout=aiohttp.ClientTimeout(sock_connect=...)",
    "total": "timeout=...",
    "max_retries": "retries=...",
    "retry": "retries=...",
    "base": "HTTPConfig(base_url=...)",
    "url": "HTTPConfig(base_url=...)",
    "user_agent": "headers={'User-Agent': ...}",
    "token": "auth=BearerAuth(...)",
    "bearer": "auth=BearerAuth(...)",
    "connector": _CONNECTIONS,
    "limits": _CONNECTIONS,
    "limit": _CONNECTIONS,
    "hooks": "HTTPConfig(interceptors=[...])",
    "event_hooks": "HTTPConfig(interceptors=[...])",
    "middlewares": "HTTPConfig(interceptors=[...])",
    "trace_configs": "HTTPConfig(interceptors=[...])",
    "json_serialize": "HTTPConfig(json_codec=JSONCodec(...))",
    "transport": "pepperpy.network.testing.MockHTTP for tests without a server",
}


def unknown_argument(name: str, known: Iterable[str], settings: Iterable[str] = ()) -> TypeError:
    """The error for an argument `name`, where only `known` ones are taken, and `settings` are fields of HTTPConfig."""
    what = f"unknown argument {name!r}"
    if name in settings:
        return TypeError(f"{what}: it is a setting of the whole client, HTTPClient(HTTPConfig({name}=...))")
    if name in INSTEAD:
        return TypeError(f"{what}: write {INSTEAD[name]}")
    if close := difflib.get_close_matches(name, [*known, *settings], n=1):
        return TypeError(f"{what}: did you mean {close[0]!r}?")
    return TypeError(what)


def explains_arguments(settings: Iterable[str] = ()) -> Callable[[Class], Class]:
    """A decorator: the constructor of the class says what to write. Its signature stays, for type checkers as well."""

    def decorated(cls: Class) -> Class:
        plain = cls.__init__
        known = inspect.signature(plain).parameters.keys() - {"self"}

        @functools.wraps(plain)
        def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
            if unknown := keywords.keys() - known:
                raise unknown_argument(sorted(unknown)[0], known, settings)
            plain(self, *arguments, **keywords)

        cls.__init__ = __init__
        return cls

    return decorated

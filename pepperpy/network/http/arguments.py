"""Errors for unknown arguments: they say what to write instead of the names that requests, httpx and aiohttp use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from pepperpy.network import arguments
from pepperpy.network.http.limits import ResponseLimits
from pepperpy.network.tls_config import TLSConfig

_VERIFY = "verify_ssl=False for no check, HTTPConfig(tls=TLSConfig(ca_file=...)) for an authority of your own"
_CONNECTIONS = "HTTPConfig(max_connections=..., max_connections_per_host=..., keepalive_timeout=...)"
_BODY = "data=... in the request: bytes, str, form fields, a path, a file or an async iterable"

# Names that other libraries use -> what to write here.
INSTEAD = {
    **{field.name: f"HTTPConfig(tls=TLSConfig({field.name}=...))" for field in fields(TLSConfig)},
    **{f"keepalive_{name}": f"HTTPConfig(keepalive=Keepalive({name}=...))" for name in ("idle", "interval", "count")},
    **{field.name: f"HTTPConfig(limits=ResponseLimits({field.name}=...))" for field in fields(ResponseLimits)},
    "max_headers": "HTTPConfig(limits=ResponseLimits(max_fields=...))",
    "user_timeout": "HTTPConfig(keepalive=Keepalive(user_timeout=...))",
    "verify": _VERIFY,
    "ssl": _VERIFY,
    "ssl_context": "HTTPConfig(tls=ssl_context)",
    "cafile": "HTTPConfig(tls=TLSConfig(ca_file=...))",
    "cert": "HTTPConfig(tls=TLSConfig(client_cert=...))",
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
    "auto_decompress": "decompress=...",
    "decode_content": "decompress=...",
    "connector": _CONNECTIONS,
    "limit": _CONNECTIONS,
    "hooks": "HTTPConfig(middlewares=[...])",
    "event_hooks": "HTTPConfig(middlewares=[...])",
    "trace_configs": "HTTPConfig(middlewares=[...])",
    "json_serialize": "HTTPConfig(json_codec=JSONCodec(...))",
}


def unknown_argument(name: str, known: Iterable[str], settings: Iterable[str] = ()) -> TypeError:
    """The error for an argument that is not among the `known` ones; `settings` are the fields of HTTPConfig."""
    if name in settings:
        what = f"unknown argument {name!r}: it is a setting of the whole client"
        return TypeError(f"{what}, HTTPClient(HTTPConfig({name}=...))")
    return arguments.unknown_argument(name, [*known, *settings], INSTEAD)

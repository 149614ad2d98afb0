"""Decides whether a request matches a route. If not, it says why in one phrase, for the message of a failed test."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypedDict
from urllib.parse import unquote

from yarl import URL

from pepperpy.network.http.checks import Params, check_headers, check_method, check_params, param_text, url_text
from pepperpy.network.http.redact import redact_url
from pepperpy.network.http.urls import with_plain_zone
from pepperpy.network.testing.http_request import MockRequest

# Parameters and headers whose values are not shown.
_SECRET_NAME = re.compile(r"token|key|secret|pass|auth|sig|code|session|cookie|credential", re.IGNORECASE)


RouteURL: TypeAlias = str | URL | re.Pattern[str] | None


class RouteOptions(TypedDict, total=False):
    """What a route may require of a request beside method and URL.

    Attributes:
        params: Query parameters that the request must have with this value, or with all values of a list; None: must
            not have. It may have others.
        headers: The same for headers, each with one value.
        json: The JSON value that the body must equal.
        match: Called with the request, body included, if everything else matches. Returns whether the route takes it.
        optional: True: `assert_all_called` does not require a request. Default: False.
    """

    params: Params
    headers: Mapping[str, str | None]
    json: Any
    match: Callable[[MockRequest], bool]
    optional: bool


class Matcher:
    """The requirements of one route; see `MockHTTP.route()`.

    Attributes:
        reads_body: Whether `mismatch_of_body()` needs the body.
    """

    def __init__(self, method: str | None, url: RouteURL, options: RouteOptions) -> None:
        self._method = None if method is None else check_method(method)
        self._params: dict[str, list[str] | None] = {}
        self._pattern: re.Pattern[str] | None = None
        self._searches = isinstance(url, re.Pattern)
        shown = "any URL"
        if isinstance(url, re.Pattern):
            self._pattern = url
            shown = repr(url.pattern)
        elif isinstance(url, (str, URL)):
            head, _, query = url_text(url).partition("#")[0].partition("?")
            self._pattern = _compiled(head, templated=isinstance(url, str))
            query_params = URL(f"?{query}").query
            self._params.update((name, query_params.getall(name)) for name in query_params)
            shown = redact_url(head)
        elif url is not None:
            raise TypeError(f"url must be a str, a yarl.URL or a compiled pattern, not {type(url).__name__}")
        for name, value in check_params(options.get("params") or {}).items():
            values = value if isinstance(value, tuple) else [value]
            self._params[name] = None if value is None else [param_text(name, item) for item in values]
        self._headers: dict[str, str | None] = check_headers("headers", options.get("headers") or {}, none=True)
        self._match = options.get("match")
        if self._match is not None and not callable(self._match):
            raise TypeError(f"match must be callable, not {type(self._match).__name__}")
        self._options = options
        self.reads_body: bool = "json" in options or self._match is not None
        more = [f"params {', '.join(self._params)}"] if self._params else []
        more += [f"headers {', '.join(self._headers)}"] if self._headers else []
        more += [name for name in ("json", "match") if name in options]
        self._shown = f"{self._method or 'any method'} {shown}{' with ' if more else ''}{' and '.join(more)}"

    def __str__(self) -> str:
        return self._shown

    def mismatch_of_head(self, request: MockRequest) -> str | None:
        """Why the request does not match, judged without its body; None if it does."""
        if self._method is not None and request.method != self._method:
            return "another method"
        if self._pattern is not None:
            # URL() gives all spellings with one meaning the same form: `%7E` is `~`. A pattern may also match the URL
            # as it was sent.
            url = URL(request.url)
            if self._searches:
                found = self._pattern.search(request.url) or self._pattern.search(str(url))
            else:
                found = self._pattern.fullmatch(_address(url))
            if found is None:
                return "another URL"
            request.path_params = {
                name: unquote(value) for name, value in found.groupdict().items() if value is not None
            }
        for name, values in self._params.items():
            if (got := request.params.getall(name, [])) != (values or []):
                return _differs("params", name, got, values)
        for name, value in self._headers.items():
            got = request.headers.getall(name, [])
            if (value not in got) if value is not None else got:
                return _differs("headers", name, got, None if value is None else [value])
        return None

    def mismatch_of_body(self, request: MockRequest) -> str | None:
        """The same for the requirements that need the body."""
        if "json" in self._options:
            try:
                got = request.json()
            except ValueError:
                return "the body is no JSON"
            if (place := _difference(got, self._options["json"], "$")) is not None:
                return f"json differs at {place}"
        if self._match is not None and not self._match(request):
            return "match said no"
        return None


def _compiled(url: str, *, templated: bool) -> re.Pattern[str]:
    names: list[str] = re.findall(r"\{([A-Za-z_]\w*)\}", url) if templated else []
    if len(set(names)) < len(names):
        raise ValueError(f"url has the same {{name}} twice: {redact_url(url)!r}")
    for number, name in enumerate(names):
        # Stands for the name: text that yarl leaves as it is in every part of a URL.
        url = url.replace(f"{{{name}}}", f"0name{number}x0")
    pattern = re.escape(_address(URL(url)))
    for number, name in enumerate(names):
        pattern = pattern.replace(f"0name{number}x0", f"(?P<{name}>[^/]+)")
    return re.compile(pattern)


def _address(url: URL) -> str:
    """Scheme, host, port and path, in one spelling."""
    return f"{with_plain_zone(url).origin()}{url.raw_path}"


def _differs(what: str, name: str, got: list[str], wanted: list[str] | None) -> str:
    if not got:
        return f"{what} {name!r} is missing"
    if wanted is None:
        return f"{what} {name!r} is there"
    if _SECRET_NAME.search(name):
        return f"{what} {name!r} has another value"
    return f"{what} {name!r} is {', '.join(got)!r:.100}, not {', '.join(wanted)!r:.100}"


def _difference(got: Any, wanted: Any, place: str) -> str | None:
    """The place where two JSON values first differ. It shows no values, which may be secret."""
    if isinstance(got, dict) and isinstance(wanted, Mapping):
        for name in [*wanted, *(name for name in got if name not in wanted)]:
            if name not in got or name not in wanted:
                return f"{place}.{name}"
            if (found := _difference(got[name], wanted[name], f"{place}.{name}")) is not None:
                return found
        return None
    if isinstance(got, list) and isinstance(wanted, (list, tuple)) and len(got) == len(wanted):
        for index, pair in enumerate(zip(got, wanted, strict=True)):
            if (found := _difference(*pair, f"{place}[{index}]")) is not None:
                return found
        return None
    # True equals 1 in Python, not in JSON.
    return None if got == wanted and isinstance(got, bool) == isinstance(wanted, bool) else place

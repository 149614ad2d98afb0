"""`MockHTTP`: its routes answer every `HTTPClient` that is opened while it is active; the network is not used.

It replaces only what carries the requests. Preparing, authentication, the rate limit, retries, time limits, errors and
reading are those of production. Nothing of aiohttp is patched.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Unpack

from pepperpy.network.backoff import no_retry_waits
from pepperpy.network.http import transports
from pepperpy.network.http.checks import is_http
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.config_checks import check_base_url
from pepperpy.network.http.cookie_jar import CookieJar
from pepperpy.network.http.redact import redact_url
from pepperpy.network.http.transport import Transport
from pepperpy.network.testing.http_match import Matcher, RouteOptions, RouteURL
from pepperpy.network.testing.http_reply import Failure, Reply
from pepperpy.network.testing.http_request import MockRequest
from pepperpy.network.testing.http_route import Route, as_lines, users_code
from pepperpy.network.testing.http_wire import MockTransport


class UnexpectedRequestError(AssertionError):
    """No route takes a request. It is no `NetworkError`, so that code which handles those does not hide it.

    Attributes:
        request: The request, with all its values. The message leaves out those that may be secret.
    """

    def __init__(self, message: str, request: MockRequest) -> None:
        super().__init__(message)
        self.request = request


class MockHTTP:
    """Routes for all clients that are opened while it is active: `with MockHTTP() as mock:`; in `async` code too.

    If several routes match a request, the one added last answers, so that a test can override its fixture. When that
    one is used up, the one before it answers. A request that no route takes raises `UnexpectedRequestError`, which says
    why.

    Redirects are followed, and cookies kept, as in production. There are no connections (`stats` counts none open and
    none reused, `client.session` raises `NotConnectedError`), no proxies, no TLS and no compression.

    It holds for the whole process, other threads included. If two are active, the one entered last answers the clients
    that are opened. A client that was opened before talks to the network. A client that is used after the block gets
    `UnexpectedRequestError`.

    Attributes:
        requests: All requests in the order of their arrival, also those that no route took. Each attempt and each
            redirect is one. `request.route` is the route that answered.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        assert_all_called: bool = True,
        assert_all_expected: bool = True,
        retry_waits: bool = False,
        real_delays: bool = True,
    ) -> None:
        """Routes may be added before and while it is active.

        Args:
            base_url: The URL of a route without scheme is appended to it, as with `HTTPConfig.base_url`.
            assert_all_called: The end of the block raises if a route got no request, unless it is `optional`.
            assert_all_expected: The end of the block raises if a request was unexpected, even if the code under test
                has caught the error.
            retry_waits: True: retries wait as in production. False: see `no_retry_waits()`.
            real_delays: False: a delay in seconds takes no time. It still counts for the call that it delays: against
                `timeout`, `deadline` and `read_timeout`, and in `elapsed` and `timings`. It counts for nothing else: it
                does not decide which of several calls ends first, nor reach a limit of yours such as
                `asyncio.timeout()`.
        """
        if base_url is not None:
            check_base_url(base_url)
        self.requests: list[MockRequest] = []
        self.real_delays = real_delays
        self._base_url = base_url
        self._assert_all_called = assert_all_called
        self._assert_all_expected = assert_all_expected
        self._retry_waits = retry_waits
        self._routes: list[Route] = []
        self._unexpected: list[UnexpectedRequestError] = []
        self._on_exit = contextlib.ExitStack()

    def __repr__(self) -> str:
        state = "active" if self in _active else "not active"
        return f"<MockHTTP {state}, {len(self._routes)} routes, {len(self.requests)} requests>"

    def __enter__(self) -> MockHTTP:
        if self in _active:
            raise RuntimeError("this MockHTTP is active already; nest another one")
        _activate(self)
        self._on_exit.callback(_deactivate, self)
        if not self._retry_waits:
            self._on_exit.enter_context(no_retry_waits())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._on_exit.close()
        if kind is not None:
            return
        if self._assert_all_expected and self._unexpected:
            first = self._unexpected[0]
            raise UnexpectedRequestError(f"{len(self._unexpected)} unexpected, the first one: {first}", first.request)
        if self._assert_all_called:
            self.assert_all_called()

    # ---- Routes ----

    def route(self, method: str | None, url: RouteURL = None, **options: Unpack[RouteOptions]) -> Route:
        """Add a route. A request has to match every argument that is given.

        Args:
            method: None for any.
            url: The URL without query, or the part that is appended to `base_url`. `{name}` in it matches one segment
                of the path, which `request.path_params` then has. A query in it means the same as `params`. Or a
                compiled pattern, which is searched in the whole URL, query included. A `yarl.URL` has no `{name}`.
            options: See `RouteOptions`.

        Raises:
            TypeError, ValueError: An argument cannot be used; the message names it.
        """
        if unknown := options.keys() - RouteOptions.__annotations__.keys():
            raise TypeError(f"unknown argument {sorted(unknown)[0]!r}")
        if isinstance(url, str) and not is_http(url):
            if self._base_url is None:
                raise ValueError(f"url must start with http:// or https:// without base_url, not {redact_url(url)!r}")
            url = self._base_url + url if url[:1] in ("", "?") else f"{self._base_url.rstrip('/')}/{url.lstrip('/')}"
        route = Route(Matcher(method, url, options), options.get("optional", False))
        self._routes.append(route)
        return route

    def get(self, url: RouteURL = None, **options: Unpack[RouteOptions]) -> Route:
        """A route for GET; the arguments are those of `route()`."""
        return self.route("GET", url, **options)

    def post(self, url: RouteURL = None, **options: Unpack[RouteOptions]) -> Route:
        """A route for POST."""
        return self.route("POST", url, **options)

    def put(self, url: RouteURL = None, **options: Unpack[RouteOptions]) -> Route:
        """A route for PUT."""
        return self.route("PUT", url, **options)

    def patch(self, url: RouteURL = None, **options: Unpack[RouteOptions]) -> Route:
        """A route for PATCH."""
        return self.route("PATCH", url, **options)

    def delete(self, url: RouteURL = None, **options: Unpack[RouteOptions]) -> Route:
        """A route for DELETE."""
        return self.route("DELETE", url, **options)

    def head(self, url: RouteURL = None, **options: Unpack[RouteOptions]) -> Route:
        """A route for HEAD."""
        return self.route("HEAD", url, **options)

    def options(self, url: RouteURL = None, **options: Unpack[RouteOptions]) -> Route:
        """A route for OPTIONS."""
        return self.route("OPTIONS", url, **options)

    def assert_all_called(self) -> None:
        """Raise `AssertionError` if a route that is not `optional` got no request. The message lists what came."""
        idle = [route for route in self._routes if not route.calls and not route.optional]
        if idle:
            came = f"Requests:{as_lines(self.requests)}" if self.requests else "No request came."
            raise AssertionError(f"without a request:{as_lines(idle)}\n{came}")

    # ---- For the wire ----

    async def answer(self, request: MockRequest, arrive: Callable[[], Awaitable[None]]) -> Reply | Failure:
        self.requests.append(request)
        if self not in _active:
            raise self._refuse(request, "the MockHTTP that this client was opened under is not active any more")
        reasons = []
        for route in reversed(self._routes):
            reason = route.matcher.mismatch_of_head(request)
            if reason is None and route.matcher.reads_body:
                await arrive()
                with users_code(f"match of {route}"):
                    reason = route.matcher.mismatch_of_body(request)
            answer = None
            if reason is None and (answer := route.next_answer()) is None:
                reason = "used up"
            if answer is None:
                reasons.append(f"{route}: {reason}")
                continue
            request.route = route
            route.calls.append(request)
            if isinstance(answer, (Reply, Failure)):
                return answer
            await arrive()
            with users_code(f"the function of {route}"):
                result = answer(request)
                if inspect.isawaitable(result):
                    result = await result
            if not isinstance(result, (Reply, Failure)):
                raise TypeError(f"the function of {route} must return a Reply or Failure, not {type(result).__name__}")
            return result
        raise self._refuse(request, f"no route takes it{':' + as_lines(reasons) if reasons else ', there is none'}")

    def _refuse(self, request: MockRequest, why: str) -> UnexpectedRequestError:
        error = UnexpectedRequestError(f"{request}: {why}", request)
        self._unexpected.append(error)
        return error


# Mocks whose blocks have begun and not ended; the last one answers. Blocks of different tasks may end in any order.
_active: list[MockHTTP] = []
_make_real_transport: Callable[[HTTPConfig, CookieJar], Transport]


def _make_mock_transport(config: HTTPConfig, jar: CookieJar) -> Transport:
    return MockTransport(_active[-1])


def _activate(mock: MockHTTP) -> None:
    global _make_real_transport
    if not _active:
        _make_real_transport = transports.make_transport
        transports.make_transport = _make_mock_transport
    _active.append(mock)


def _deactivate(mock: MockHTTP) -> None:
    _active.remove(mock)
    if not _active:
        transports.make_transport = _make_real_transport

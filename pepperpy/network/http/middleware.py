"""Middleware: code of the user around each call, or around each exchange of it.

The engine sends through `around_call()` and `around_exchange()` where there is a middleware, and not at all where there
is none. Whatever a middleware does with the responses that it gets, each is given back or given up.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from pepperpy.network.errors import InvalidRequestError, NetworkError, UsageError
from pepperpy.network.http.call import Call
from pepperpy.network.http.failures import failure_of
from pepperpy.network.http.middleware_request import HTTPRequest
from pepperpy.network.http.middleware_response import MadeAnswer, UnreadResponse
from pepperpy.network.http.request import Request
from pepperpy.network.http.response import HTTPResponse, answer_of, request_of
from pepperpy.network.http.transport import Answer, WireError

Send = Callable[[HTTPRequest], Awaitable[HTTPResponse]]
"""Sends a request, through the further middlewares; see `Middleware`."""

Middleware = Callable[[HTTPRequest, Send], Awaitable[HTTPResponse]]
"""`async def middleware(request, send): return await send(request)`, an item of `HTTPConfig.middlewares`.

It may change `request` before it sends it, send it again, or return `request.respond(...)` without sending it. `send`
raises what the caller would get, but no `HTTPStatusError`: a status is judged when all middlewares have returned. What
a middleware raises ends the call as it is. Each `send` has to end before the next one, and before the middleware does
(else `UsageError`); a response that is returned after a later `send` has to be read before that.
"""

M = TypeVar("M", bound=Callable[..., Any])


def each_exchange(middleware: M) -> M:
    """Mark a middleware that runs around each exchange: each attempt, and each redirect that is followed.

    It sees `request` as it goes over the wire, and a response whose body is not read yet. Its time counts as that of
    the attempt. Without this mark a middleware runs once, around the whole call.
    """
    if not callable(middleware):
        raise TypeError(f"middleware must be callable, not {type(middleware).__name__}")
    try:
        middleware.each_exchange = True  # type: ignore[attr-defined]
    except AttributeError:  # a bound method
        middleware = functools.partial(middleware)  # type: ignore[assignment]
        middleware.each_exchange = True  # type: ignore[attr-defined]
    return middleware


def split(middlewares: Iterable[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Those around a call, and those around each exchange."""
    around: tuple[list[Any], list[Any]] = [], []
    for middleware in middlewares:
        around[getattr(middleware, "each_exchange", False)].append(middleware)
    return tuple(around[0]), tuple(around[1])


async def around_call(
    run: Callable[..., Awaitable[tuple[Answer, bytes]]], call: Call, request: Request, whole: bool
) -> tuple[Answer, bytes]:
    """Carry out a call through its middlewares. Returns what `run` would.

    Args:
        run: `Engine.run()`.
        request: What the first exchange would send.
    """
    call.show(request)
    sent: list[HTTPResponse] = []
    begun = False
    failure: NetworkError | None = None

    async def send(view: HTTPRequest) -> HTTPResponse:
        nonlocal begun, failure
        await _give_up_last(sent)
        with _refusals(call):
            replaced = view.to_call()
        if replaced is not None:
            await replaced.close()
        if begun:
            call.renew(failure)
        begun, failure = True, None
        try:
            answer, content = await run(call, whole=whole, inside=True)
        except NetworkError as error:
            failure = error
            raise
        if whole:
            response = HTTPResponse(call.request, answer, content, call)
        else:
            response = UnreadResponse(call.request, answer, call)
        sent.append(response)
        return response

    response = await _through(call.middlewares, send, HTTPRequest(call, request, streamed=not whole), sent)
    call.request = request_of(response)
    if whole:
        content = await response.read()
        call.done_at = call.done_at or call.now
        return answer_of(response), content
    return _unread(response), b""


async def around_exchange(
    exchange: Callable[[Request, Call], Awaitable[Answer]],
    call: Call,
    request: Request,
    complete: Callable[[Call, Request], object],
) -> Answer:
    """Make one exchange through the middlewares around it. Returns what `exchange` would."""
    sent: list[HTTPResponse] = []
    begun = earlier_left = False

    async def send(view: HTTPRequest) -> HTTPResponse:
        nonlocal begun, earlier_left
        if begun:
            await _give_up_last(sent)
            earlier_left |= call.request_left
            call.begin()
            complete(call, request)
        begun = True
        with _refusals(call):
            view.to_exchange()
        try:
            response = UnreadResponse(request, await exchange(request, call), call)
        except WireError as error:
            failure = failure_of(error, call)
        else:
            sent.append(response)
            return response
        finally:
            call.request_left |= earlier_left
        # Outside of the except block, whose error would be its __context__.
        raise failure

    response = await _through(call.exchange_middlewares, send, HTTPRequest(call, request), sent)
    return _unread(response)


async def authorize(call: Call, request: Request) -> None:
    """Let the `Auth` of the request authorize it.

    Raises:
        ValueError: What it has made of the request cannot be sent.
        Exception: What its `apply()` raises.
    """
    assert request.auth is not None
    view = HTTPRequest(call, request)
    await request.auth.apply(view)
    view.to_exchange()


async def _through(
    middlewares: Sequence[Middleware], exchange: Send, request: HTTPRequest, sent: list[HTTPResponse]
) -> HTTPResponse:
    """The response of the outermost middleware. All others are given up."""
    sending = over = False

    async def once_at_a_time() -> HTTPResponse:
        nonlocal sending
        if over or sending:
            # Both would change the one call.
            when = "after its middleware has returned" if over else "while another send() of this call is under way"
            raise UsageError(f"send() was called {when}")
        sending = True
        try:
            answered = await exchange(request)
        finally:
            sending = False
        if over:
            answer_of(answered).abort()
            raise UsageError("the middleware returned while its send() was under way")
        return answered

    async def from_index(index: int) -> HTTPResponse:
        if index == len(middlewares):
            return await once_at_a_time()

        async def send(given: HTTPRequest) -> HTTPResponse:
            if given is not request:
                raise TypeError(f"send() takes the request that the middleware was given, not {type(given).__name__}")
            return await from_index(index + 1)

        middleware = middlewares[index]
        response = await middleware(request, send)
        if not isinstance(response, HTTPResponse):
            raise TypeError(f"a middleware must return a response, not {type(response).__name__}: {middleware!r:.200}")
        return response

    response: HTTPResponse | None = None
    try:
        return (response := await from_index(0))
    finally:
        over = True
        for other in sent:
            if other is not response:
                answer_of(other).abort()  # does nothing if it has been read


@contextlib.contextmanager
def _refusals(call: Call) -> Iterator[None]:
    """A block in which `ValueError` means that a middleware has made a request that cannot be sent."""
    try:
        yield
    except ValueError as error:
        raise call.error(InvalidRequestError, f"a middleware's {error}", error) from error


async def _give_up_last(sent: list[HTTPResponse]) -> None:
    if sent and isinstance(last := sent[-1], UnreadResponse):
        await last.give_up()


def _unread(response: HTTPResponse) -> Answer:
    if isinstance(response, UnreadResponse):
        return response.unread_answer()
    return MadeAnswer.of(answer_of(response), response.content)

"""The same program over `MockHTTP` and over a real server: what each of the two sees has to be the same."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from pepperpy.network import HTTPClient, HTTPConfig, NetworkError
from pepperpy.network.testing import MockHTTP, no_retry_waits
from support.http_faults import answering, chunked_response, response
from support.http_peer import Handler, http_peer

Act = Callable[[HTTPClient, str], Awaitable[Any]]

# What aiohttp adds by itself, and MockRequest.headers documents as left out; and what names the port.
NOT_COMPARED = {"host", "accept", "accept-encoding", "user-agent", "connection", "referer"}


@dataclass
class Scenario:
    """`real` answers over a socket what `mock` says of the mock; both are given the base URL by `{base}`."""

    act: Act
    real: Callable[[str], Handler]
    mock: Callable[[MockHTTP, str], object]
    config: dict[str, Any]
    requests: bool  # whether what the server sees of the requests is certain


class Scenarios(dict[str, Scenario]):
    """By name; `add` is a decorator for what the client does."""

    def add(
        self,
        name: str,
        real: Callable[[str], Handler],
        mock: Callable[[MockHTTP, str], object],
        requests: bool = True,
        **config: Any,
    ) -> Callable[[Act], Act]:
        def add(act: Act) -> Act:
            self[name] = Scenario(act, real, mock, config, requests)
            return act

        return add


def sequence(*replies: dict[str, Any]) -> tuple[Callable[[str], Handler], Callable[[MockHTTP, str], object]]:
    """Both sides of answering the n-th request, whatever it is, with the n-th of `replies`."""

    def real(base: str) -> Handler:
        answers = []
        for reply in replies:
            status = reply.get("status", "200 OK")
            headers = [f"{name}: {value.replace('{base}', base)}" for name, value in reply.get("headers", ())]
            if "chunks" in reply:
                answers.append(chunked_response(reply["chunks"], *headers))
            else:
                answers.append(response(reply.get("content", b""), *headers, status=status))
        return answering(*answers)

    def mock(mock: MockHTTP, base: str) -> None:
        route = mock.route(None)
        for reply in replies:
            status = int(reply.get("status", "200")[:3])
            headers = [(name, value.replace("{base}", base)) for name, value in reply.get("headers", ())]
            rest = {key: value for key, value in reply.items() if key in ("content", "chunks")}
            route.reply(status, headers=headers, **rest)

    return real, mock


def described(response: Any) -> dict[str, Any]:
    return {
        "status": response.status,
        "reason": response.reason,
        "ok": response.ok,
        "method": response.method,
        "url": re.sub(r":\d+", "", response.url),
        "headers": sorted((name.lower(), re.sub(r":\d+", "", value)) for name, value in response.headers.items()),
        "cookies": {name: morsel.value for name, morsel in response.cookies.items()},
        "history": [(past.status, re.sub(r":\d+", "", past.url)) for past in response.history],
        "attempts": response.attempts,
        "encoding": response.encoding,
    }


async def outcome(client: HTTPClient, base: str, act: Act) -> Any:
    try:
        result = await act(client, base)
    except NetworkError as error:
        message = re.sub(r"\(phase .*\)$", "", re.sub(r":\d+", "", error.message))
        details = {name: error.details.get(name) for name in ("method", "phase", "attempt", "status", "limit")}
        result = type(error).__name__, message, details, cause_of(error), getattr(error, "body", None)
    stats = client.stats
    return result, stats.calls, stats.attempts, stats.retries


async def without_words(request: Awaitable[Any]) -> Any:
    """For errors whose text is aiohttp's or the loop's own."""
    with pytest.raises(NetworkError) as caught:
        await request
    error = caught.value
    return type(error).__name__, error.details["phase"], error.details["attempt"], cause_of(error)


# The mock's causes are aiohttp's; the core's own mean the same.
_SAME_CAUSE = {
    "TruncatedResponse": "ServerDisconnectedError",
    "TimeoutError": "SocketTimeoutError",
    "MalformedResponse": "HttpProcessingError",
}


def cause_of(error: BaseException) -> str:
    name = type(error.__cause__).__name__
    return _SAME_CAUSE.get(name, name)


def seen(method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes) -> Any:
    fields = sorted((name.lower(), value) for name, value in headers if name.lower() not in NOT_COMPARED)
    boundary = re.search(r"boundary=(\w+)", str(fields))
    if boundary is not None:
        fields = [(name, value.replace(boundary[1], "boundary")) for name, value in fields]
        body = body.replace(boundary[1].encode(), b"boundary")
    return method, target, fields, body


async def over_a_socket(it: Scenario) -> Any:
    handler: list[Handler] = []
    async with http_peer(lambda connection: handler[0](connection)) as peer:
        # By name: aiohttp keeps no cookies of addresses.
        base = f"http://localhost:{peer.port}"
        handler.append(it.real(base))
        with no_retry_waits():
            async with HTTPClient(HTTPConfig(**it.config)) as client:
                result = await outcome(client, base, it.act)
        return result, [seen(r.method, r.target, r.headers.items(), r.body) for r in peer.requests]


async def over_the_mock(it: Scenario) -> Any:
    base = "http://localhost:8080"
    with MockHTTP(assert_all_called=False) as mock:
        it.mock(mock, base)
        async with HTTPClient(HTTPConfig(**it.config)) as client:
            result = await outcome(client, base, it.act)
    return result, [seen(r.method, r.target.raw_path_qs, r.headers.items(), r.body) for r in mock.requests]


async def check_agreement(it: Scenario) -> None:
    real = await over_a_socket(it)
    mocked = await over_the_mock(it)
    assert mocked[0] == real[0]
    if it.requests:
        assert mocked[1] == real[1]

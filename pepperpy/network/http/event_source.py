"""`HTTPClient.events()`: server-sent events of a stream that is opened again when it ends, as browsers do.

It follows the WHATWG HTML standard, section 9.2.3 (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from multidict import CIMultiDict

from pepperpy.network.backoff import Backoff
from pepperpy.network.errors import ConnectionLostError, IncompleteReadError, NetworkError, NetworkTimeoutError
from pepperpy.network.http.sse import ServerSentEvent
from pepperpy.network.http.stream import HTTPStream

# Seconds to wait if the server names no time. As Chrome; the standard says "a few seconds".
RECONNECTION_TIME = 3.0
# Seconds of the shortest wait, whatever a server asks for. As Firefox; the standard lets a client wait longer than the
# server says. One that says `retry: 0` and ends each stream at once would be asked hundreds of times a second.
MIN_RECONNECTION_TIME = 0.5
# Seconds of the longest wait that a server may ask for: a day. Arbitrary.
MAX_RECONNECTION_TIME = 86_400.0


async def follow_events(
    stream: Callable[..., HTTPStream],
    headers: Mapping[str, str | None] | None,
    last_event_id: str,
    deadline: float | None,
    backoff: Backoff,
    wait: Callable[[float], Awaitable[None]],
) -> AsyncGenerator[ServerSentEvent, None]:
    """The events of one stream after the other, each going on behind the last event of the one before.

    Args:
        stream: Makes a stream, from the headers and the deadline.
        deadline: Seconds from the first call on; None: no limit.
        backoff: What is added to the server's time after streams in a row that brought no event.
        wait: Waits so many seconds.
    """
    own: CIMultiDict[str | None] = CIMultiDict(headers or {})
    own.setdefault("Accept", "text/event-stream")
    own.setdefault("Cache-Control", "no-store")
    ends_at = math.inf if deadline is None else time.monotonic() + deadline
    seconds = RECONNECTION_TIME
    fruitless = 0  # streams in a row
    while True:
        if last_event_id:
            own["Last-Event-ID"] = last_event_id
        else:
            own.popall("Last-Event-ID", None)
        # At least a nanosecond: then the call itself says that the deadline has passed.
        limit: dict[str, Any] = {} if deadline is None else {"deadline": max(ends_at - time.monotonic(), 1e-9)}
        fruitless += 1
        async with stream(own, **limit) as answer:
            if answer.status == 204:
                return  # the server says that nothing more will come
            try:
                async with contextlib.aclosing(answer.events(last_event_id=last_event_id)) as events:
                    async for event in events:
                        fruitless = 0
                        yield event
            except (ConnectionLostError, IncompleteReadError, NetworkTimeoutError) as error:
                if not _can_go_on(error):
                    raise
            last_event_id = answer.last_event_id
            if answer.reconnection_time is not None:
                seconds = min(max(answer.reconnection_time, MIN_RECONNECTION_TIME), MAX_RECONNECTION_TIME)
        # No longer than to the deadline, which the next stream then tells.
        await wait(min(backoff.delay_after(max(fruitless, 1), seconds), max(ends_at - time.monotonic(), 0.0)))


def _can_go_on(error: NetworkError) -> bool:
    """Whether the stream broke off. A limit of the caller's on the whole ends everything."""
    return error.details.get("limit") not in ("deadline", "timeout")

r"""`ServerSentEvent`: one event of a `text/event-stream` body. The core parses them, in its module `event_stream`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of the stream.

    Attributes:
        data: The `data` fields, joined by newlines; may be empty.
        event: The type that the server gave it, or "message".
        id: The last event ID of the stream so far, which an earlier event may have set. Send it as `Last-Event-ID` to
            go on after this event. Empty: none, or the server has reset it.
        retry: Milliseconds to wait before reconnecting, as the server last said; None if it has not.
    """

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None

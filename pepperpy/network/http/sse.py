r"""`ServerSentEvent`: one event of a `text/event-stream` body. The core parses them, in its module `event_stream`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, overload

from pepperpy.network.errors import DecodeError
from pepperpy.network.json_codec import default_codec
from pepperpy.network.json_types import decode_as
from pepperpy.network.printable import printable

T = TypeVar("T")


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

    @overload
    def json(self, type: type[T]) -> T: ...
    @overload
    def json(self, type: object = None) -> Any: ...
    def json(self, type: Any = None) -> Any:
        """`data` as JSON; with `type` (a dataclass, msgspec or pydantic class, `list[Model]`, ...) as that type.

        Raises:
            DecodeError: It is no JSON, or does not fit `type`; `content` has its bytes.
            UsageError: `type` needs a library that is not installed; a `ModuleNotFoundError` as well, which names it.
        """
        content = self.data.encode()
        try:
            codec = default_codec()
            return codec.loads(content) if type is None else decode_as(content, type, codec)
        except ValueError as error:
            text = f"the event's data is not the expected JSON: {printable(str(error), 600)}"
            raise DecodeError(text, {"event": printable(self.event)}, error, content) from error

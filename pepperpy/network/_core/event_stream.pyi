from collections.abc import Iterator
from typing import Generic, TypeVar

Event = TypeVar("Event")

class EventParser(Generic[Event]):
    last_event_id: str
    retry: int | None
    def __init__(self, max_size: int, kind: type[Event]) -> None: ...
    def feed(self, piece: bytes) -> Iterator[Event]: ...
    def finish(self) -> None: ...

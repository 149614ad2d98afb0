"""Collects the events of `on_event`."""

from __future__ import annotations

from typing import TypeVar

from pepperpy.network import Event, StateChanged

E = TypeVar("E", bound=Event)


class Seen:
    """An `on_event` that keeps what it is told.

    Attributes:
        events: All of them, in their order.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def all(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def one(self, kind: type[E]) -> E:
        (event,) = self.all(kind)
        return event

    @property
    def names(self) -> list[str]:
        """The names of the events; of a change of state, the state."""
        return [event.state if isinstance(event, StateChanged) else type(event).__name__ for event in self.events]

    def take(self) -> list[str]:
        """`names`, and forget them."""
        names = self.names
        self.events.clear()
        return names


def failing(event: Event) -> None:
    """An `on_event` that is broken."""
    raise ValueError("on_event is broken")

"""When a client is open: in which loop and process, how it is opened, and how it is closed.

`HTTPClient` documents these methods.
"""

from __future__ import annotations

import asyncio
import os
import warnings

from pepperpy.network.checks import running_loop
from pepperpy.network.errors import ClosedError, UsageError
from pepperpy.network.http import transports
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.engine import Engine
from pepperpy.network.http.stats import Counters
from pepperpy.network.http.transport import Transport
from pepperpy.network.http.wire_log import logged

# Objects that a forked process must neither use nor collect.
_of_the_parent: list[Engine] = []


class Lifetime:
    """Opens and closes one client, any number of times.

    Attributes:
        engine: Carries the calls while the client is open; None otherwise.
        loop: The one that the client was opened in last.
        counters: Of all times.
    """

    __slots__ = ("_closed", "_config", "_pid", "counters", "engine", "loop")

    def __init__(self, config: HTTPConfig) -> None:
        self._config = config
        self.counters: Counters = Counters()
        self.engine: Engine | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._closed = False

    @property
    def state(self) -> str:
        return "closed" if self._closed else "open" if self.engine is not None else "new"

    @property
    def transport(self) -> Transport | None:
        return None if self.engine is None else self.engine.transport

    def initialize(self) -> None:
        """Open the client, even after it was closed."""
        self._closed = False
        self.open()

    def open(self) -> Engine:
        """The engine for a call in the running loop."""
        if self.engine is None:
            loop = asyncio.get_running_loop()
            if self._closed:
                raise ClosedError("the client was closed; initialize() or `async with` opens it again")
            kind = Engine
            if self._config.on_event is not None:
                from pepperpy.network.http.observing import ObservedEngine as kind
            self.engine = kind(self._config, logged(transports.make_transport, self._config), self.counters)
            self.loop = loop
            self._pid = os.getpid()
        elif self.loop is not running_loop():  # None in a forked process that goes on in a coroutine
            raise UsageError(self._whose())
        return self.engine

    def _whose(self) -> str:
        """Why the client cannot be used here, and what to do."""
        anew = "await client.close() here, then initialize() or `async with` opens it anew"
        if self._pid != os.getpid():
            return f"the client was opened by the process that this one was forked from, and stays its; {anew}"
        assert self.loop is not None
        where = "the client was opened in another event loop, which"
        if self.loop.is_running():
            return f"{where} is running; close it there, or use a client for each loop"
        return f"{where} {'has ended' if self.loop.is_closed() else 'is not running'}; {anew}"

    async def close(self) -> None:
        """Close all connections, from any loop in which that is possible."""
        engine = self.engine
        forked = engine is not None and self._pid != os.getpid()
        elsewhere = engine is not None and not forked and self.loop is not asyncio.get_running_loop()
        if elsewhere and self.loop is not None and self.loop.is_running():
            raise UsageError("the client is open in another event loop, which is running; close it there")
        self.engine = None
        self._closed = True
        if engine is None:
            return
        self.counters.discarded_connections += engine.transport.discarded
        if forked:
            # The parent's epoll is shared with this process: closing here would take the parent's sockets out of it.
            _of_the_parent.append(engine)
        elif elsewhere:
            engine.transport.abandon()
        else:
            engine.close()
            await engine.transport.close(self._config.close_timeout)

    def drop(self, client: object) -> None:
        """The client is collected; it may not have been closed."""
        if self.engine is not None and self._pid != os.getpid():
            _of_the_parent.append(self.engine)
        elif self.engine is not None:
            message = "unclosed HTTPClient; use `async with` or await close()"
            warnings.warn(message, ResourceWarning, stacklevel=3, source=client)
            self.engine.transport.abandon()

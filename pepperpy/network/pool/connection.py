"""The connections of a `NetworkPool`: how one is made, and how an old one is checked."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable
from time import monotonic

from pepperpy.network._core.lending import Lending, PooledConnection
from pepperpy.network.config import NetworkConfig, observer_of
from pepperpy.network.tcp.client import NetworkClient, link_of
from pepperpy.network.watchdog import time_limit

logger = logging.getLogger("pepperpy.network.pool")

# Share of `max_age` by which a connection may end earlier, at random, so that those made together do not end together.
# Arbitrary; HikariCP takes up to a fortieth, pgxpool leaves it to its user.
AGE_JITTER = 0.1

Check = Callable[[NetworkClient], Awaitable[object]]


class Maker:
    """Makes connections ready for use, and checks old ones.

    Attributes:
        config: Of the clients. It tells nobody of events: a connection outlives its clients, so the pool does.
    """

    def __init__(
        self,
        config: NetworkConfig,
        max_age: float | None,
        check: Check | None,
        check_timeout: float,
    ) -> None:
        self._observed = config
        self.config: NetworkConfig = config if config.on_event is None else config.replace(on_event=None)
        self._max_age = math.inf if max_age is None else max_age
        self._check = check
        self._check_timeout = check_timeout

    async def make(self, lending: Lending) -> PooledConnection:
        """A new connection. Raises what `connect()` raises; a cancellation or an error leaves no connection open."""
        client = NetworkClient(self.config)
        await link_of(client).connect(observer_of(self._observed))
        now = monotonic()
        expires_at = now + self._max_age * (1 - random.uniform(0, AGE_JITTER))
        return PooledConnection(lending, client, link_of(client), expires_at)

    async def passes(self, connection: PooledConnection) -> bool:
        """Run the check: whether the connection is as good as new. If not, or on a cancellation, it is closed."""
        assert self._check is not None
        client = connection.client
        assert client is not None, "it is not lent"
        try:
            with time_limit(self._check_timeout):
                result = await self._check(client)
        except Exception as error:
            client.abort()
            logger.info("%s: an idle connection failed its check (%s)", client.config.address, type(error).__name__)
            return False
        except BaseException:
            client.abort()
            raise
        if result is False or connection.flaw() is not None:
            client.abort()
            return False
        connection.pass_on()
        return True

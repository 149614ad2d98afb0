"""A `fetch` of tokens that ends when the test says so."""

from __future__ import annotations

import asyncio

from pepperpy.network.http.auth import Auth
from support.cancelling import until


class TokenServer:
    """A `fetch` that counts, and lets each fetch end only when the test says so."""

    def __init__(self, lifetime: float | None = None) -> None:
        self.lifetime = lifetime
        self.started = self.ended = self.cancelled = 0
        self.error: BaseException | None = None
        self.open = asyncio.Event()

    async def __call__(self) -> tuple[str, float | None]:
        self.started += 1
        number = self.started
        try:
            await self.open.wait()
            if self.error is not None:
                raise self.error
            return f"token-{number}", self.lifetime
        except asyncio.CancelledError:
            self.cancelled += 1
            # Cleaning up takes a moment, as closing a connection does.
            for _ in range(5):
                await asyncio.sleep(0)
            raise
        finally:
            self.ended += 1

    async def waiting(self, auth: Auth, count: int) -> list[asyncio.Task[str]]:
        """So many tasks that wait for the header, with the fetch under way."""
        tasks = [asyncio.create_task(auth.header()) for _ in range(count)]
        await until(lambda: self.started > self.ended, "a fetch has begun")
        return tasks

"""`ObservedEngine`: tells `HTTPConfig.on_event` what happens to the calls of a client. Others have an `Engine`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import monotonic

from multidict import CIMultiDict

from pepperpy.network.errors import NetworkError
from pepperpy.network.events import AttemptDone, CallDone, CallStarted, Observer, ResponseStarted, report
from pepperpy.network.http.call import Call
from pepperpy.network.http.checks import check_headers
from pepperpy.network.http.engine import Engine
from pepperpy.network.http.redact import redact_url
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import Answer

# Headers that say where a request ends, or whom it is for.
_OF_FRAMING = ("content-length", "transfer-encoding", "host")


class CallObserver(Observer):
    """Tells of one call. Its methods take the call, which holds this object."""

    attempt: int
    host: str
    port: int
    __slots__ = ("_attempt_told", "_ended", "_status", "_url")

    def __init__(self, call: Call) -> None:
        on_event = call.config.on_event
        assert on_event is not None
        super().__init__(on_event, call.host, call.url.port or 0)
        self._url = redact_url(str(call.url))
        self._status: int | None = None  # of the present attempt
        self._attempt_told = 0
        self._ended = False

    def started(self, call: Call) -> None:
        event = CallStarted(
            at=monotonic(), id=self.id, host=self.host, port=self.port, attempt=0, method=call.method, url=self._url
        )
        self.pass_on(event)
        try:
            headers = check_headers("CallStarted.headers", event.headers, none=False)
            for name in headers:
                if name.lower() in _OF_FRAMING:
                    raise ValueError(f"CallStarted.headers must not have {name!r}")
        except (TypeError, ValueError) as error:
            report(error, "on_event")
            return
        if headers:
            if call.headers is None:
                call.headers = CIMultiDict()
            call.headers.update(headers)

    def sending(self, call: Call, request: Request) -> None:
        """An exchange begins."""
        if self.attempt != call.attempt:
            self.attempt = call.attempt
            self._status = None
        self.host, self.port = request.url.raw_host or "", request.url.port or 0

    def answered(self, call: Call, request: Request, answer: Answer) -> None:
        """The head of its answer is there."""
        self._status = answer.status
        self.tell(
            ResponseStarted,
            method=request.method,
            url=redact_url(str(request.url)),
            status=answer.status,
            version=answer.version,
            seconds=call.now - (call.connected_at or call.attempt_at),
            reused=call.reused,
        )

    def attempt_done(self, call: Call, error: BaseException | None, retry_in: float | None = None) -> None:
        """Tell the end of the present attempt, once."""
        if self._attempt_told == call.attempt:
            return
        self._attempt_told = call.attempt
        if self.attempt != call.attempt:
            # This attempt has sent nothing: it ended while it waited for the rate limit, for example.
            self.attempt, self._status = call.attempt, None
        now = call.done_at or call.now
        facts = {"error": error, "retry_in": retry_in, "status": self._status}
        self.tell(AttemptDone, at=now - call.skipped_s, seconds=now - call.attempt_at, **facts)

    def ended(self, call: Call, error: BaseException | None) -> None:
        """Tell the end of the call, once."""
        if self._ended:
            return
        self._ended = True
        if not isinstance(error, (NetworkError, asyncio.CancelledError)):
            error = None  # the caller's own error, raised in the block of a stream
        self.attempt_done(call, error)
        facts = {"method": call.method, "url": self._url, "status": self._status}
        seconds = call.elapsed
        self.tell(CallDone, at=call.started_at + seconds - call.skipped_s, seconds=seconds, error=error, **facts)


class ObservedEngine(Engine):
    """Carries calls as its base does, and tells of them."""

    async def run(self, call: Call, *, whole: bool, inside: bool = False) -> tuple[Answer, bytes]:
        observer = call.observer
        if observer is None:
            observer = call.observer = CallObserver(call)
            observer.started(call)
        try:
            outcome = await super().run(call, whole=whole, inside=inside)
        except BaseException as error:
            observer.ended(call, error)
            raise
        if whole:
            observer.ended(call, None)
        return outcome

    def _send(self, call: Call, request: Request) -> Awaitable[Answer]:
        assert call.observer is not None
        call.observer.sending(call, request)
        return self._answered(call, call.observer, request, super()._send(call, request))

    async def _answered(
        self, call: Call, observer: CallObserver, request: Request, exchange: Awaitable[Answer]
    ) -> Answer:
        answer = await exchange
        observer.answered(call, request, answer)
        return answer

    async def _wait(self, call: Call, delay: float, why: str, failure: NetworkError | None) -> None:
        assert call.observer is not None
        call.observer.attempt_done(call, failure, delay)
        await super()._wait(call, delay, why, failure)

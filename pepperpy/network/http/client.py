"""`HTTPClient`: the documented API; more of it in methods.py and series.py.

`lifetime.py` opens and closes it, `engine.py` carries out its calls.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Never, Unpack

from yarl import URL

from pepperpy.network.arguments import explains_arguments
from pepperpy.network.checks import check_bool, refuse_copies, running_loop
from pepperpy.network.errors import NotConnectedError
from pepperpy.network.http.aiohttp_types import aiohttp
from pepperpy.network.http.arguments import unknown_argument
from pepperpy.network.http.call import Call
from pepperpy.network.http.checks import Params
from pepperpy.network.http.config import SETTINGS, HTTPConfig
from pepperpy.network.http.cookie_store import Cookies
from pepperpy.network.http.download import Download, DownloadResult
from pepperpy.network.http.interceptors import before_request
from pepperpy.network.http.kept_file import KeptFile
from pepperpy.network.http.lifetime import Lifetime
from pepperpy.network.http.methods import NamedMethods
from pepperpy.network.http.options import Arguments, Proxy, RequestOptions
from pepperpy.network.http.part_file import PartFile
from pepperpy.network.http.prepare import Prepare
from pepperpy.network.http.response import HTTPResponse, status_error
from pepperpy.network.http.series import SeriesMethods
from pepperpy.network.http.stats import HTTPStats, stats_of
from pepperpy.network.http.stream import HTTPStream
from pepperpy.network.http.transport import Answer
from pepperpy.network.json_codec import RequestData


@explains_arguments(functools.partial(unknown_argument, settings=SETTINGS))
class HTTPClient(NamedMethods, SeriesMethods):
    """A client for any number of HTTP requests, with one pool of connections.

    Make a client anywhere. `async with`, `initialize()` or the first request opens it; from then on it is used in that
    event loop only, by any number of tasks. `close()` (or `cleanup()`) ends it. A closed client refuses requests with
    `ClosedError`, until `initialize()` opens it again. A client that is dropped unclosed issues a `ResourceWarning`.

    Every method that sends a request raises, besides what its own documentation names:

        InvalidRequestError: The URL, a header or another value cannot be sent. Nothing was sent. If a file cannot be
            read, the error is a FileNotFoundError, PermissionError, ... too.
        ConnectError, TLSError, ProxyError: No connection could be made.
        ConnectionLostError, IncompleteReadError, ProtocolError: The server broke off, or broke the rules.
        NetworkTimeoutError: A time limit passed; `details["limit"]` names the setting. PoolTimeoutError: the limit
            passed in the queue for a connection.
        RedirectError: A redirect was not followed.
        ResponseTooLargeError: The body exceeds `max_response_size`, or `ResponseLimits.max_ratio`.
        HTTPStatusError: The status is 400 or above, unless `raise_for_status` is False.
        ClosedError: The client was closed before or meanwhile.
        UsageError: Called in another event loop than the one that the client was opened in, or in a forked process.

    All are `NetworkError`. When a call has begun, `details` has `method`, `url` (with its path, without password and
    query values), `phase`, `attempt` and `elapsed`. Failures that may pass are tried again, as `HTTPConfig` says.

    Cancellation: The connection of a cancelled request is closed, never reused. Nobody knows whether the server has
    carried out the request.
    """

    def __init__(self, config: HTTPConfig | None = None) -> None:
        """Args: config: The settings. Nothing is opened yet."""
        if config is None:
            config = HTTPConfig()
        elif not isinstance(config, HTTPConfig):
            hint = f": HTTPClient(HTTPConfig({'...' if isinstance(config, (str, URL)) else '**settings'}))"
            raise TypeError(f"config must be an HTTPConfig, not {type(config).__name__}{hint}")
        self.config = config
        self._prepare = Prepare(config)
        self._life = Lifetime(config)

    def __repr__(self) -> str:
        return f"<HTTPClient {self._life.state} {self.config!r}>"

    def __getstate__(self) -> object:
        if self._life.state != "new":
            refuse_copies(self)
        return super().__getstate__()

    def __copy__(self) -> Never:
        # Of a new client as well: both would have one `Lifetime`, and the first to go would close what the other opens.
        refuse_copies(self)

    def __del__(self) -> None:
        life: Lifetime | None = getattr(self, "_life", None)
        if life is not None:
            life.drop(self)

    # ---- Opening and closing ----

    async def initialize(self) -> None:
        """Open the client. Does nothing if it is open.

        Raises:
            UsageError: The client is open in another event loop, or was opened before this process was forked.
        """
        self._life.initialize()

    async def close(self) -> None:
        """Close all connections; requests under way end with `ClosedError`. On return all descriptors are closed.

        It may be called twice, on a client that was never opened, and after the loop of the client has ended. The end
        of one of several nested `async with` blocks closes the client too.

        Raises:
            UsageError: The client is open in another loop, which is running.

        Cancellation: The connections are closed all the same, at once.
        """
        await self._life.close()

    async def cleanup(self) -> None:
        """The same as `close()`."""
        await self.close()

    async def __aenter__(self) -> HTTPClient:
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The live aiohttp session, for what this class does not cover, such as WebSockets.

        Raises:
            NotConnectedError: The client is not open.
        """
        transport = self._life.transport
        if transport is None or transport.session is None:
            raise NotConnectedError("the client has no session before initialize() or `async with`, nor after close()")
        session: aiohttp.ClientSession = transport.session
        return session

    @property
    def cookies(self) -> Cookies:
        """The cookies that servers have set: to look at, to set, to save and to load.

        Raises:
            NotConnectedError: The client is not open.
        """
        if self._life.engine is None:
            raise NotConnectedError("the client has no cookies before initialize() or `async with`, nor after close()")
        return Cookies(self._life.engine.jar)

    @property
    def stats(self) -> HTTPStats:
        """Counts over the life of this client; see `HTTPStats`."""
        return stats_of(self._life.counters, self._life.transport)

    # ---- Requests ----

    async def request(
        self,
        method: str,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        json: RequestData | None = None,
        **options: Unpack[RequestOptions],
    ) -> HTTPResponse:
        """Send a request and read the response.

        Args:
            method: Any token; upper-cased.
            url: Absolute, or appended to `base_url`. What is percent-encoded in a str is sent byte for byte, so signed
                URLs work; what cannot be sent is encoded. A `yarl.URL` is sent as it is. But without `encoded=True`,
                yarl has changed the spelling of `%2F` and the like already.
            params: Query parameters, beside those in `url`: a mapping (a multidict, the query of a `yarl.URL`) or pairs
                of name and value. A list repeats the name, None leaves it out.
            headers: Headers of this request; None removes one that would be sent by default.
            proxy: The URL of the proxy for this request, see `HTTPConfig.proxy`. False: none, whatever the
                configuration and the environment say.
            timeout: Seconds for one attempt, or an `aiohttp.ClientTimeout`; None: as configured.
            verify_ssl: False: do not check the certificate.
            json: Any JSON value to send as the body; None: no body.
            options: See `RequestOptions`.
        """
        life = self._life
        engine = life.engine
        if engine is None or life.loop is not running_loop():
            engine = life.open()
        config = self.config
        if config.interceptors:
            given = Arguments(method, url, params, headers, proxy, timeout, verify_ssl, json, options)
            params, headers = await before_request(config.interceptors, given)
        call = self._prepare.call(method, url, params, headers, proxy, timeout, verify_ssl, json, options)
        counters = life.counters
        counters.in_flight += 1
        try:
            answer, content = await engine.run(call, whole=True)
        finally:
            counters.in_flight -= 1
            if call.body is not None:
                await call.body.close()
                call.forget_body()
        response = HTTPResponse(call.request, answer, content, call)
        if answer.status >= 400 and call.raise_for_status:
            response.raise_for_status()
        return response

    def stream(
        self,
        method: str,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        json: RequestData | None = None,
        **options: Unpack[RequestOptions],
    ) -> HTTPStream:
        """Send a request, and read the body as it comes: `async with client.stream("GET", url) as stream:`.

        It takes the arguments of `request()`. The body has no limit unless `max_response_size` is given, and its time
        has none unless `timeout` is given. Until the head has come, the client's `timeout` applies, unless there is a
        body to send. Attempts are repeated until the head has come, not afterwards.
        """
        config = self.config

        async def open() -> tuple[Answer, Call]:
            engine = self._life.open()
            seen = params, headers
            if config.interceptors:
                given = Arguments(method, url, params, headers, proxy, timeout, verify_ssl, json, options)
                seen = await before_request(config.interceptors, given)
            call = self._prepare.call(method, url, *seen, proxy, timeout, verify_ssl, json, options, whole=False)
            self._life.counters.in_flight += 1
            try:
                answer, _ = await engine.run(call, whole=False)
                if answer.status >= 400 and call.raise_for_status:
                    raise status_error(answer, await engine.read_error(answer), call)
            except BaseException as error:
                call.note_end(error)
                if call.body is not None:
                    await call.body.close()
                raise
            finally:
                self._life.counters.in_flight -= 1
            return answer, call

        limit = options.get("max_response_size")
        return HTTPStream(open, config.limits.max_line_size, limit)

    async def download(
        self,
        url: str | URL,
        path: str | os.PathLike[str],
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        *,
        checksum: str | None = None,
        resume: bool = False,
        **options: Unpack[RequestOptions],
    ) -> DownloadResult:
        """GET a file, and put it at `path` when it is complete. Until then, readers of `path` see the old file.

        Until then it is written beside `path`, as `.NAME.*.part`. It gets the mode of the file that it replaces, or of
        any new file. It is not forced to the disk: after a power failure it may be lost or damaged, as any file that
        was just written.

        A download that breaks off resumes, with Range and If-Range, if the server has named the version of the file (a
        strong ETag, or an old enough Last-Modified) and still has that version. Otherwise it starts again. Each failure
        counts against `retries`, as for every request, but not one that came after another MiB.

        The file has the bytes that the server sends. It is asked for uncompressed, and a Content-Encoding that comes
        all the same stays, as with curl: servers derive it from the name of an archive, whose checksum is that of the
        archive. With `decompress=True` it is undone; then a download that breaks off starts again.

        A file is complete if it has the announced length, or ends as its chunks say. If the server sends neither, the
        file ends where the connection ends, and only a checksum tells whether that is everything.

        Args:
            path: Where to put the file. A symbolic link is followed.
            resume: Go on where an earlier call with `resume=True` broke off, also one of a program that was killed, if
                the server still has that version. Until then, what has come stays beside `path` as `.NAME.*.part`, with
                notes as JSON, unless the server has named no version, or the file was wrong. After a failure of the
                power, only what was on the disk for certain counts. One call at a time may do this for `path`.
            timeout: Seconds for one attempt, its part of the body included; None: no limit. `deadline` limits it all.
            checksum: The checksum of the file: `"sha256:<hex>"`, or with another of `hashlib.algorithms_guaranteed`.
            options: See `RequestOptions`. `progress` is called with `(bytes received, total or None)`, from 0 again if
                the download starts again. It may be a coroutine function. If it raises, the download ends with that
                exception. `raise_for_status` has no effect.

        Raises:
            IntegrityError: The file does not have this checksum, or is longer than announced.
            HTTPStatusError: The answer is not the file: also 202, 204, 304, or a redirect that must not be followed.
            NetworkError: `path` cannot be written. It is an OSError too, of the system's class: FileNotFoundError,
                IsADirectoryError, no space left, ... If that is known before the request is sent, it is raised then, as
                InvalidRequestError.

        After an error or a cancellation, `path` is unchanged, and without `resume` no other file is left. A
        cancellation waits for a write to the disk that is under way.
        """
        engine = self._life.open()
        check_bool("resume", resume)
        file = KeptFile(path, checksum) if resume else PartFile(path, checksum)
        options.setdefault("decompress", False)
        progress = options.pop("progress", None)
        if progress is not None and not callable(progress):
            raise TypeError(f"progress must be callable, not {type(progress).__name__}")
        if self.config.interceptors:
            given = Arguments("GET", url, params, headers, proxy, timeout, verify_ssl, None, options)
            params, headers = await before_request(self.config.interceptors, given)
        call = self._prepare.call("GET", url, params, headers, proxy, timeout, verify_ssl, None, options, whole=False)
        download = Download(engine, call, file, progress, options.get("max_response_size"))
        self._life.counters.in_flight += 1
        try:
            return await download.run()
        finally:
            self._life.counters.in_flight -= 1

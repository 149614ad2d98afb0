"""The way of an HTTP exchange where nothing goes wrong: an idle connection, the request, the answer, idle again.

`http/h1/` derives from these classes, and adds all that is rare: making connections, the queue for them, uploads,
codings, failures, the end. What it adds is called from here where that is needed, and named as it is there. In Python
these steps are 600 bytecodes of a GET, a quarter of all (measured).
"""

from cpython.time cimport monotonic
from libc.math cimport INFINITY

from pepperpy.network._core.endpoint cimport Endpoint, State as EndpointState
from pepperpy.network._core.http_reader cimport ResponseReader, State
from pepperpy.network._core.receiver cimport Receiver
from pepperpy.network._core.sender cimport Sender

from pepperpy.network._core.http_reader import READ_ERRORS

cdef extern from "platform.h":
    bint has_input(int fd) noexcept

cdef extern from *:
    """
    /* Methods and hosts whose heads are remembered. Arbitrary; some 500 bytes each. */
    #define MAX_REMEMBERED 1024
    """
    const Py_ssize_t MAX_REMEMBERED

cdef object _READ_ERRORS = READ_ERRORS


cdef class HTTPOrigin:
    """What leads to one place over one route; see `Origin`.

    Attributes:
        idle: Connections that wait for a request, the one used last at the end.
    """
    cdef:
        readonly list idle

    def __cinit__(self, *_, **__):
        self.idle = []


cdef class HTTPPool:
    """Takes connections from the idle ones, and puts them there; see `Pool`.

    Attributes:
        closed: Whether no connection is used again.
        discarded: How many idle connections were not fit for use; `discard()` counts them.
    """
    cdef:
        public bint closed
        public long long discarded
        readonly dict origins        # key_of(): HTTPOrigin
        readonly object queue        # of exchanges that wait for a connection; false: there is none
        readonly object timer        # Timer
        double _keep                 # seconds that a connection may be idle

    def __init__(self, object queue, object timer, double keep):
        self.origins = {}
        self.queue = queue
        self.timer = timer
        self._keep = keep

    cdef HTTPConnection take(self, request):
        # An idle connection that is fit for use, if there is one.
        cdef HTTPOrigin origin = self.origins.get(key_of(request))
        cdef HTTPConnection connection
        cdef long long before = self.discarded

        if origin is None or not origin.idle:
            return None
        connection = self._take_idle(origin)
        if self.discarded != before and self.queue:
            # Connections that were not fit have been closed: their slots are free for those who wait.
            try:
                self.serve()
            except BaseException:
                if connection is not None:
                    connection.abort()
                raise
        return connection

    def take_idle(self, HTTPOrigin origin not None):
        """An idle connection to one origin that is fit for use, if there is one."""
        return self._take_idle(origin)

    cdef HTTPConnection _take_idle(self, HTTPOrigin origin):
        cdef HTTPConnection connection

        while origin.idle:
            connection = origin.idle.pop()
            if connection._is_fit():
                return connection
            self.discard(connection)
        return None

    def release(self, HTTPConnection connection not None):
        """Its exchange is over, and it can carry another."""
        self._release(connection)

    cdef _release(self, HTTPConnection connection):
        if self.closed:
            connection.close()
            return
        self._put(connection)
        if self.queue:
            self.serve()

    def put(self, HTTPConnection connection not None):
        """Now it is idle."""
        self._put(connection)

    cdef _put(self, HTTPConnection connection):
        cdef double now = monotonic()

        connection.idle_since = now
        connection.idle_until = now + min(self._keep, connection.server_keeps)
        connection.origin.idle.append(connection)
        self._look_by(connection.idle_until)

    def look_by(self, double when):
        """Look at the silence of servers, and at what is idle, at that time or before."""
        self._look_by(when)

    cdef _look_by(self, double when):
        if when < <double>self.timer.at:
            self.timer.look_by(when)


cdef class HTTPTransport:
    """Begins exchanges; see `H1Transport`.

    Attributes:
        pool: Its connections.
    """
    cdef:
        readonly HTTPPool pool
        object _rules                # ResponseRules
        object _new_answer           # HTTPAnswer, or a class that is derived from it
        object _defaults             # of the requests whose heads are remembered
        dict _rests                  # by method and host: what follows the target, and whether no request follows

    def __init__(self, HTTPPool pool not None, rules, new_answer):
        self.pool = pool
        self._rules = rules
        self._new_answer = new_answer
        self._rests = {}

    async def exchange(self, request, trip):
        """Send one request; returns its answer when the head of that is there. See `Transport.exchange()`."""
        cdef HTTPAnswer answer
        cdef HTTPConnection connection
        cdef bint has_head
        cdef tuple rest = self._rest_of(request)

        try:
            target = request.url.raw_path_qs if request.proxy is None else self.target_of(request)
            head = f"{request.method} {target}".encode() + <bytes>rest[0]
        except ValueError as error:
            raise self.unsendable() from error
        answer = self._new_answer(self._rules, request.method == "HEAD")
        connection = None if trip.fresh else self.pool.take(request)
        if connection is None:
            trip.phase = "queue"
            connection = await self.pool.make(request, trip)
        else:
            trip.reused = True
        # Nothing is awaited in between, so the connection is always somebody's.
        try:
            connection.begin(request, rest[1], trip)
            if request.payload is None:
                connection.sender.send(head)
            else:
                connection.send(request, head)
            while True:
                has_head = answer.head_from(connection.receiver)
                if connection.upload is not None:
                    connection.upload.note(answer)
                if has_head:
                    break
                connection.note_wait()
                try:
                    await answer.next_bytes(connection.receiver)
                finally:
                    connection.waits_since = 0.0
            answer.begin_body(connection, request.decompress)
            return answer
        except _READ_ERRORS as error:
            trip.heard = connection.receiver.bytes_received > connection.heard_before
            failure = connection.fail(error, answer)
        except BaseException:
            connection.abort()
            raise
        # Outside of the except block: its __context__ would be shown as well.
        raise failure

    cdef tuple _rest_of(self, request):
        # What `rest_of()` makes is remembered where it depends on the client, the method and the host only. A proxy that
        # forwards requests gets its credentials there, which may be others for each request, and which no server is to see.
        url = request.url
        if not request.only_defaults or (request.proxy is not None and url.scheme == "http"):
            return self.rest_of(request)
        if request.defaults is not self._defaults:
            self._rests = {}
            self._defaults = request.defaults
        key = request.method, url.host_port_subcomponent
        rest = self._rests.get(key)
        if rest is None:
            rest = self.rest_of(request)
            if len(self._rests) >= MAX_REMEMBERED:
                self._rests.clear()
            self._rests[key] = rest
        return rest


cpdef tuple key_of(request):
    """Requests of the same key may go over the same connections: scheme, host and port, proxy, whether it is verified."""
    url = request.url
    return url.scheme, url.host_port_subcomponent, request.proxy, request.verify


cdef class HTTPConnection:
    """One connection, and the one exchange that it carries at a time; see `Connection`.

    Attributes:
        pool, origin: Whose it is.
        protocol, receiver, sender: Of the core.
        idle_since, idle_until: Times of `time.monotonic()`, while it is idle.
        server_keeps: Seconds for which the server keeps it idle, as far as is known.
        busy: Whether it carries an exchange, or was given to one that is about to begin.
        exchanges: How many it has carried, the present one included.
        limits: Of the present exchange; see `Limits`.
        look_after: Seconds of silence of the server, after which the pool looks at it; infinity: it never does.
        has_body: Whether the request has one.
        delivery: What looks at how it is taken; None before the first look.
        waits_since: When the wait for the server began; 0: nobody waits.
        heard_before: Bytes that had come before the present exchange.
        upload: The request's body, while it is sent beside the reading; or None.
    """
    cdef:
        object __weakref__
        readonly HTTPPool pool
        readonly HTTPOrigin origin
        readonly object protocol
        readonly Receiver receiver
        readonly Sender sender
        readonly double idle_since
        readonly double idle_until
        public double server_keeps
        public bint busy
        readonly long long exchanges
        readonly object limits
        public double look_after
        readonly bint has_body
        public object delivery
        readonly double waits_since
        readonly long long heard_before
        public object upload
        Endpoint _endpoint
        int _fd                      # of the socket; -1: it has none
        bint _closes                 # no other exchange follows the present one

    def __init__(self, HTTPPool pool not None, HTTPOrigin origin not None, protocol not None):
        """Args: protocol: Connected."""
        self.pool = pool
        self.origin = origin
        self.protocol = protocol
        self.receiver = protocol.receiver
        self.sender = protocol.sender
        self._endpoint = protocol.endpoint
        self.server_keeps = self.look_after = INFINITY
        sock = protocol.extra_info("socket")
        self._fd = -1 if sock is None else sock.fileno()

    def is_fit(self):
        """Whether it can carry a request: it is open, and nothing waits on it, such as bytes that nobody asked for."""
        return self._is_fit()

    cdef bint _is_fit(self) noexcept:
        return (
            self.idle_until > monotonic()
            and self._is_open()
            and not self.receiver.unread()
            # What the kernel has and the loop has not read yet. urllib3 and httpx ask the same question.
            and not has_input(self._fd)
        )

    cdef bint _is_open(self) noexcept:
        return (
            self._endpoint.state == EndpointState.OPEN and self._endpoint.send_error is None and not self.receiver.eof
        )

    cdef begin(self, request, bint closes, trip):
        # An exchange. `closes`: its request says that no other one follows.
        self.limits = request.limits
        limit = self.limits.read
        self.look_after = INFINITY if limit is None else limit
        self.has_body = request.payload is not None
        self.delivery = None
        # A server that speaks before it is asked may answer the request as well, and the next one would get that.
        self._closes = closes or self.receiver.unread() > 0
        self.busy = True
        self.exchanges += 1
        self.heard_before = self.receiver.bytes_received
        trip.phase = "response"
        trip.connected_at = monotonic()
        trip.request_left = True

    async def wait(self, waiter):
        """Await `waiter`, which the answer gave, as long as the server is not silent for too long."""
        self.note_wait()
        try:
            await waiter
        finally:
            self.waits_since = 0.0

    cdef note_wait(self):
        # From now on, somebody waits for the server.
        self.waits_since = monotonic()
        if self.look_after != INFINITY:
            self.pool._look_by(self.waits_since + self.look_after)

    def finish(self, HTTPAnswer answer not None):
        """The answer is whole, and taken. What is returned has been given up, and may have to be waited for."""
        return self._finish(answer)

    cdef _finish(self, HTTPAnswer answer):
        try:
            return self._put_back(answer)
        except BaseException:
            # The answer no longer refers to the connection, so nobody else would close it.
            self.abort()
            raise

    cdef _put_back(self, HTTPAnswer answer):
        upload, self.upload = self.upload, None
        if upload is not None and not upload.complete:
            self.give_up(upload)
            return upload
        if (
            answer.reusable
            and not self._closes
            and self._is_open()
            and not self.receiver.unread()
            # A server may answer without reading: the next request would wait behind that body, or be held back for it.
            and not self.sender.pending()
            and not self.sender.holds_back()
        ):
            self.busy = False
            if answer.keep_alive is not None:
                self.note_keep_alive(answer)
            self.pool._release(self)
        else:
            self.close()
        return None


cdef class HTTPAnswer(ResponseReader):
    """The answer of one exchange; see `H1Answer`.

    Attributes:
        ended: Whether the body has been read to its end.
        connection: What it comes from; None once that carries something else, or nothing.
        decodes: Whether a content coding has to be undone.
        decoder: What undoes it; None before the body.
    """
    cdef:
        public object decoder
        readonly bint ended
        public HTTPConnection connection
        public bint decodes

    def __del__(self):
        # Its user has lost it before the end of the body: where there was no memory to return it from a coroutine, for
        # example. This may run in any thread.
        if self.connection is not None:
            # By abort() of the connection, not of its protocol: one that has ended already would not tell the pool.
            self.connection.protocol.abandon(self.connection.abort)

    cdef next_bytes(self, Receiver receiver):
        # wait().
        return receiver.wait_for(receiver.buffer.length + 1, None, None, None, None)

    cdef begin_body(self, HTTPConnection connection, bint decompress):
        self.connection = connection
        self.decodes = decompress and self.content_encoding is not None

    @property
    def wire_bytes(self):
        return self.body_bytes

    @property
    def whole_size(self):
        if self.decodes and (self._state != State.WHOLE or self.body_bytes):
            return None
        if self._state == State.WHOLE:
            return self.body_bytes
        if self._state != State.KNOWN_LENGTH:
            return None
        if self.connection is not None and self._left > self.connection.receiver.unread():
            return None
        return self.body_bytes + self._left

    def take_whole(self, limit):
        """The body, if all of it is on hand and no more than `limit` bytes; else None, and nothing has been taken.

        None too where it has to be decoded, or came in chunks, or an upload is under way: `read()` waits for that.

        Raises: what `fail()` makes of READ_ERRORS. The connection is closed.
        """
        cdef HTTPConnection connection = self.connection

        if (
            connection is None
            or self.decodes
            or self.body_bytes
            or (limit is not None and self._left > <long long>limit)
            or (self._state != State.WHOLE and self._state != State.KNOWN_LENGTH)
            or self._left > connection.receiver.buffer.length
            or connection.upload is not None
        ):
            return None
        try:
            body = self.rest_from(connection.receiver)
            self._end()
            return body
        except _READ_ERRORS as error:
            failure = connection.fail(error, self)
        self.connection = None
        # Outside of the except block: its __context__ would be shown as well.
        raise failure

    def end(self):
        """All of it has been taken. The connection is free before its user goes on.

        Returns: an upload that was given up, and whose end has to be waited for; or None.
        """
        return self._end()

    cdef _end(self):
        cdef HTTPConnection connection = self.connection

        self.connection = None
        self.ended = True
        # None: what a collection of garbage has run has left the answer.
        return None if connection is None else connection._finish(self)

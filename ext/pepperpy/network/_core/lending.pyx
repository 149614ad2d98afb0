"""The way of a loan of `NetworkPool` where nothing goes wrong: an idle connection, its user, idle again.

`pool/` derives from these classes, and adds all that is rare: making connections, the queue for them, those that cannot
be lent again, the end. What it adds is called from here where that is needed, and named as it is there. In Python these
steps took 3 us; a whole loan takes 1.7 us now (measured, CPython 3.11).
"""

from cpython.time cimport monotonic
from cpython.weakref cimport PyWeakref_NewRef

from pepperpy.network._core.endpoint cimport Endpoint, State, running_loop
from pepperpy.network._core.receiver cimport Receiver
from pepperpy.network._core.record cimport Slot, copy_record
from pepperpy.network._core.sender cimport Sender

from pepperpy.network._core.record import copy_of

import asyncio

from pepperpy.network.errors import NetworkError, UsageError

cdef extern from "platform.h":
    int NO_INPUT, STREAM_ENDED
    int input_state(int fd) noexcept

cdef object _CancelledError = asyncio.CancelledError
cdef str _ONE_BLOCK = "acquire() gives one connection: call it for each block"


cdef class ClientSlots:
    """What changes in clients and their links with each loan. In Python that takes 0.3 us more (measured)."""
    cdef:
        Slot link, receiver, sender                     # of clients
        Slot client, loan, exchanges, past              # of links
        Slot protocol, receiver_of_link, sender_of_link

    def __init__(self, Slot link not None, Slot receiver not None, Slot sender not None, kind_of_link):
        """Args: those of a client, and the class of the links."""
        self.link, self.receiver, self.sender = link, receiver, sender
        self.client = Slot(kind_of_link, "client")
        self.loan = Slot(kind_of_link, "loan")
        self.exchanges = Slot(kind_of_link, "exchanges")
        self.past = Slot(kind_of_link, "past")
        self.protocol = Slot(kind_of_link, "protocol")
        self.receiver_of_link = Slot(kind_of_link, "receiver")
        self.sender_of_link = Slot(kind_of_link, "sender")

    cdef void connect(self, client, link) noexcept:
        # All calls of the client go to the connection of this link.
        self.link.put(client, link)
        self.receiver.put(client, self.receiver_of_link.of(link))
        self.sender.put(client, self.sender_of_link.of(link))

    cdef void let_go(self, client, link, past, blank) noexcept:
        # The client has no connection any more, and its link that of `blank`. It keeps its counts: `past`.
        self.past.put(link, past)
        self.protocol.put(link, self.protocol.of(blank))
        self.receiver_of_link.put(link, self.receiver_of_link.of(blank))
        self.sender_of_link.put(link, self.sender_of_link.of(blank))
        self.exchanges.put(link, None)
        self.connect(client, link)


cdef class PooledConnection:
    """A connection that one user after the other has, with what the pool knows of it.

    While it is idle, the pool waits for its next byte, by a callback and without a task. Nothing should come. A byte that
    nobody asked for, the end of the stream or a loss ends it at once, before it surprises its next user.

    Attributes:
        lending: Of its pool.
        protocol: The connection.
        client: The next user's, whose name it is; None while it is lent, so that a user who has lost it is noticed.
        link: The client's.
        expires_at: It is not lent from then on, a time of `time.monotonic()`; infinity: never.
        idle_since: When it became idle.
        used: Whether it has been lent before.
        is_dropped: Whether it counts as dropped.
    """
    cdef:
        readonly Lending lending
        readonly object protocol
        public object client
        public object link
        readonly double expires_at
        readonly double idle_since
        readonly bint used
        public bint is_dropped
        bint _watched                # whatever happens on it is reported
        Endpoint _endpoint
        Receiver _receiver
        Sender _sender
        int _fd                      # of the socket; -1: it has none, or its bytes need not be bytes of the stream
        bint _tls
        bint _tls_of_proxy
        object _bytes_came           # what the receiver calls while this watches
        object _pattern              # of the links of its users, see tcp/client.py

    def __init__(self, Lending lending not None, client not None, link not None, double expires_at):
        """Args: client: Connected. link: The client's."""
        protocol = link.protocol
        self.lending = lending
        self.client = client
        self.link = link
        self._pattern = copy_of(link)
        self.expires_at = expires_at
        self.protocol = protocol
        self._endpoint = protocol.endpoint
        self._receiver = protocol.receiver
        self._sender = protocol.sender
        self._tls = self._endpoint.tls
        self._tls_of_proxy = self._endpoint.tls_of_proxy
        self._fd = -1
        sock = protocol.extra_info("socket")
        # TLS 1.3 sends session tickets unasked.
        if sock is not None and not self._tls:
            self._fd = sock.fileno()
        self._bytes_came = self._disturb
        protocol.watch(self._ended, False)

    def hand_over(self):
        """The client, which only its user keeps from now on."""
        return self._hand_over()

    cdef _hand_over(self):
        client, self.client = self.client, None
        self.lending._slots.loan.put(self.link, self)
        return client

    def pass_on(self):
        """Move the connection to a new client. Whoever kept the old client has no connection then."""
        self._pass_on()

    cdef _pass_on(self):
        cdef ClientSlots slots = self.lending._slots
        last_client, last_link = self.client, self.link

        # Copied, because to construct a link takes 1 us (measured). The new one is a copy of what the link was when the
        # connection was new, because the last user may have given the client another configuration.
        client, link = copy_record(self.lending._blank), copy_record(self._pattern)
        slots.client.put(link, PyWeakref_NewRef(client, None))
        past = self.protocol.totals(slots.past.of(last_link))
        # Nothing fails from here on. A client that has the connection is warned of if it is lost.
        slots.let_go(last_client, last_link, past, slots.link.of(self.lending._blank))
        slots.connect(client, link)
        self.client, self.link = client, link

    def forsake(self):
        """See `client_link.Loan`."""
        return self.lending.forsake(self)

    def flaw(self):
        """None if another user could begin here as on a new connection; else why not, a key of `PoolStats.dropped`.

        Raises:
            UsageError: Called in another thread, loop or process than that of the connection.
        """
        return self._flaw(running_loop()) or self._unread_flaw()

    cdef str _flaw(self, loop):
        # The flaw that this process knows of.
        if self._endpoint.state == State.CLOSING or self._endpoint.state == State.CLOSED:
            return "closed"
        if self._receiver.unread():
            return "unread"
        if self._endpoint.state != State.OPEN or self._endpoint.send_error is not None or self._receiver.eof:
            return "lost"
        self._endpoint.check_user()
        if self._endpoint.loop is not loop:
            if self._endpoint.loop.is_closed():
                return "lost"
            self._endpoint.check_loop()
        # Now that nothing is unread: a receive or a request is under way, or was given up. Or a send is, or the block
        # called start_tls(), and the next user expects a plain connection.
        if not self._receiver.is_idle() or self._sender.is_unfinished():
            return "unfinished"
        if self._endpoint.tls != self._tls or self._endpoint.tls_of_proxy != self._tls_of_proxy:
            return "unfinished"
        if self._sender.pending():
            try:
                if self._sender.start_flush(None) is not None:
                    return "unsent"
            except NetworkError:
                return "lost"
        return None

    cdef str _unread_flaw(self):
        # The flaw that only the kernel knows of, because the loop has not read yet. To ask takes 0.3 us (measured).
        cdef int seen = input_state(self._fd)

        if seen == NO_INPUT:
            return None
        return "lost" if seen == STREAM_ENDED else "unread"

    cdef _watch(self):
        # From now on, whatever happens on it is reported to `disturbed()`.
        self._watched = True
        self._receiver.on_unasked = self._bytes_came

    def unwatch(self):
        """From now on, whatever happens concerns its user."""
        self._unwatch()

    cdef _unwatch(self):
        self._watched = False
        self._receiver.on_unasked = None

    def wake(self):
        """End the watch and return the flaw, see `flaw()`."""
        return self._wake(running_loop())

    cdef str _wake(self, loop):
        self._unwatch()
        return self._flaw(loop) or self._unread_flaw()

    def _ended(self, protocol):
        self._disturb()

    def _disturb(self):
        if self._watched:
            self.lending.disturbed(self, self._wake(self._endpoint.loop) or "lost")


cdef class Lending:
    """Lends connections and takes them back; see `Slots`.

    Attributes:
        closed: Whether nothing is lent any more.
        loop: Where it is used; None before the first use.
        waiting: The tasks that wait for a connection; false: there is none.
        idle: What can be lent; the one used last is at the end.
        lent: What somebody has.
        preparing: What is being made or checked: tasks.
        reused: How often a connection was lent that had been lent before.
        refill_failures: How often in a row a connection failed that nobody waited for.
        timer: For what has to be done later; None before the first use.
    """
    cdef:
        public bint closed
        public object loop
        readonly object waiting      # Queue
        readonly list idle
        readonly set lent
        readonly dict preparing
        readonly long long reused
        public long long refill_failures
        public object timer          # Timer
        Py_ssize_t _min_size
        double _max_idle             # seconds
        double _check_after          # seconds for which a connection may be idle without a check; infinity: none is checked
        object _blank                # NetworkClient that is never connected
        ClientSlots _slots

    def __init__(self, waiting, Py_ssize_t min_size, double max_idle, double check_after, blank,
                 ClientSlots slots not None):
        cdef Endpoint endpoint = slots.protocol.of(slots.link.of(blank)).endpoint

        # What clients have that were released; see let_go().
        endpoint.given_back = "the client was released to its pool; acquire() lends another"
        self.waiting = waiting
        self.idle = []
        self.lent = set()
        self.preparing = {}
        self._min_size = min_size
        self._max_idle = max_idle
        self._check_after = check_after
        self._blank = blank
        self._slots = slots

    cdef PooledConnection _take(self):
        # An idle connection, if one can be lent at once.
        cdef PooledConnection connection
        loop = running_loop()

        if self.loop is not loop:
            self.enter()
        # Nothing is idle after the end. While a task waits, what is idle has to be checked: nobody is overtaken here.
        while self.idle and not self._needs_check(self.idle[len(self.idle) - 1]):
            connection = self.idle.pop()
            try:
                flaw = connection._wake(loop)
                if flaw is None:
                    self._lend(connection)
                    return connection
                self.discard(connection, flaw)
            except BaseException:
                self.lose(connection)
                raise
        return None

    cdef bint _needs_check(self, PooledConnection connection) noexcept:
        # Whether it has been idle so long that it must be checked before it is lent.
        return monotonic() - connection.idle_since >= self._check_after

    def lend(self, PooledConnection connection not None):
        """Count it as lent. `hand_over()` gives it to its user."""
        self._lend(connection)

    cdef _lend(self, PooledConnection connection):
        self.lent.add(connection)
        self.reused += connection.used
        connection.used = True
        self.refill_failures = 0

    def put(self, client, link, failure=None):
        """Take back what was lent. Never waits, so it cannot be cancelled.

        Args:
            link: The client's.
            failure: Why the connection must not be lent again, a key of `PoolStats.dropped`; None: `flaw()` is asked.

        Raises:
            UsageError: It is not lent, or this is another thread, loop or process.
        """
        self._put(client, link, failure)

    cdef _put(self, client, link, failure):
        cdef PooledConnection connection
        cdef double now

        loan = self._slots.loan.of(link)
        if loan not in self.lent:
            self.refuse(loan)
            return
        connection = loan
        try:
            flaw = connection._flaw(running_loop()) if failure is None else failure
            if flaw is None and self.waiting:
                # If nobody waits, it is idle: what comes calls `disturbed()`, and the next loan asks again.
                flaw = connection._unread_flaw()
            now = monotonic()
            if flaw is None and connection.expires_at <= now:
                flaw = "age"
            self.lent.remove(connection)
            self._slots.loan.put(link, None)
            connection.client = client
            if flaw is None or flaw == "unsent" or flaw == "age":
                connection._pass_on()
            if flaw is None and not self.closed:
                self._offer(connection, now)
            else:
                self.end(connection, flaw)
        except UsageError:
            raise
        except BaseException:
            self._slots.loan.put(link, None)
            self.lose(connection)
            raise

    def offer(self, PooledConnection connection not None):
        """Lend the connection to the task that has waited longest, or add it to the idle ones."""
        self._offer(connection, monotonic())

    cdef _offer(self, PooledConnection connection, double now):
        cdef double due = connection.expires_at

        if self.waiting and self.serve(connection):
            return
        connection.idle_since = now
        self.idle.append(connection)
        connection._watch()
        if self.surplus() > 0:
            due = min(due, (<PooledConnection>self.idle[0]).idle_since + self._max_idle)
        if due < <double>self.timer.at:
            self.timer.look_by(due)

    cpdef Py_ssize_t surplus(self) except? -1:
        """Connections beyond `min_size`, those that are closing not counted; negative if some are missing."""
        return len(self.lent) + len(self.idle) + len(self.preparing) - self._min_size


cdef class Loan:
    """What `acquire()` returns; see `Acquire`. It has the client of its block, and nobody else keeps that.

    Attributes:
        lending: Of the pool.
        timeout: Seconds to wait for a connection; None for no limit.
        client: Of the block that is entered; else None.
    """
    cdef:
        readonly Lending lending
        readonly object timeout
        readonly object client
        object _link                 # the client's

    def __init__(self, Lending lending not None, timeout):
        self.lending = lending
        self.timeout = timeout

    def take(self):
        """The client of an idle connection, if one can be lent at once; else None."""
        cdef PooledConnection connection = self.lending._take()

        return None if connection is None else connection._hand_over()

    def enter(self):
        """Begin the block, if an idle connection can be lent at once; else None."""
        cdef PooledConnection connection

        if self.client is not None:
            raise UsageError(_ONE_BLOCK)
        connection = self.lending._take()
        return None if connection is None else self._begin(connection)

    def begin(self, PooledConnection connection not None):
        """Begin the block with a connection that was waited for. Returns the client."""
        if self.client is not None:
            # Another task has entered the block meanwhile.
            self.lending._put(connection._hand_over(), connection.link, None)
            raise UsageError(_ONE_BLOCK)
        return self._begin(connection)

    cdef _begin(self, PooledConnection connection):
        self._link = connection.link
        self.client = connection._hand_over()
        return self.client

    def __aexit__(self, kind, error, traceback):
        """End the block. That never waits, so what is awaited is over already: a coroutine would cost 0.1 us (measured)."""
        if self.client is None:
            raise UsageError("no block of acquire() to end: it was not entered, or has ended")
        client, self.client = self.client, None
        link, self._link = self._link, None
        failure = None
        if kind is not None:
            failure = "cancelled" if issubclass(kind, _CancelledError) else "failed"
        self.lending._put(client, link, failure)
        return _OVER


cdef class _Over:
    """An awaitable that gives None at once."""
    def __await__(self):
        return self

    def __next__(self):
        raise StopIteration


cdef _Over _OVER = _Over()

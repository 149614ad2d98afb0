"""asyncio's callbacks of one connection. The event loop calls no other file.

    loop -> StreamProtocol -> Receiver -> ReceiveBuffer        Endpoint: state, ownership, timer; both sides use it
                           -> Sender   -> SendQueue            Waiter:   what a task awaits

asyncio and uvloop behave differently. These rules work with both; without any of them uvloop crashed or bytes were lost
(measured):

- `get_buffer` touches no transport, runs no Python code, and returns at least one writable byte.
- Reading is paused and transports are closed in `buffer_updated` or later, never before.
- No callback raises: the connection ends, with the exception as its cause. uvloop would drop an exception.
- `asyncio.BufferedProtocol` is a real base class: asyncio checks `isinstance`, uvloop looks for the method.
"""

cimport cython
from cpython.time cimport monotonic

from pepperpy.network._core.endpoint cimport Endpoint, State
from pepperpy.network._core.receiver cimport Receiver
from pepperpy.network._core.sender cimport Sender
from pepperpy.network._core.waiter cimport Waiter, new_waiter

from pepperpy.network.errors import ConnectionLostError
from pepperpy.network.last_turns import LAST_TURNS

import asyncio
import contextlib
import errno
import functools
import ssl


# Missing where Python was built with OpenSSL 1.1.
cdef int _IGNORE_UNEXPECTED_EOF = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)


cdef object _truncated():
    return ssl.SSLEOFError(
        ssl.SSL_ERROR_EOF, "the stream ended without close_notify: what came may not be all that was sent"
    )


cdef class _Base:
    """The first base of a cdef class that inherits a Python class: so its objects get no `__dict__`."""


@cython.final
cdef class StreamProtocol(_Base, asyncio.BufferedProtocol):
    cdef:
        readonly Endpoint endpoint
        readonly Receiver receiver
        readonly Sender sender
        list _closed                 # waiters that wait_closed() has returned; or None
        object _on_end               # callable with this protocol, called when the connection has ended, see watch(); or None
        bint _eof_is_loss            # the peer's end of stream counts as a loss

    def __cinit__(self, config, given_back=None):
        """Args: given_back: It stands for a connection that its client has given back; what errors say then."""
        self.endpoint = Endpoint(config)
        self.endpoint.given_back = given_back
        self.receiver = Receiver(self.endpoint)
        self.sender = Sender(self.endpoint)

    # ---- What the loop calls ----

    def connection_made(self, transport):
        self.endpoint.open(asyncio.get_running_loop(), transport)
        self.endpoint.sender = self.sender
        self.endpoint.on_timer = self._timer_fired
        try:
            fd = -1
            tls = transport.get_extra_info("sslcontext") is not None
            if not tls:
                sock = transport.get_extra_info("socket")
                if sock is not None:
                    fd = sock.fileno()
            # Then pause_writing() and resume_writing() tell whether the transport holds any bytes. With 1 over TLS: at 0,
            # asyncio's TLS transport pauses while it is empty, and nothing resumes it but a write.
            transport.set_write_buffer_limits(high=1 if tls else 0)
            self.receiver.open()
            self.sender.open(fd)
            if tls:
                self.endpoint.tls = True
                self.receiver.start_tls()
        except BaseException as error:
            self.endpoint.break_off(error)

    def get_buffer(self, sizehint):
        return self.receiver.next_buffer()

    def buffer_updated(self, nbytes):
        try:
            self.sender.data_arrived()
            self.receiver.received(nbytes)
        except BaseException as error:
            self.endpoint.break_off(error)

    def eof_received(self):
        if self.endpoint.tls:
            return self._tls_ended()
        try:
            if self._eof_is_loss and self.endpoint.state == State.OPEN:
                self._end_of_stream_is_loss()
                return False
            if self.endpoint.send_error is not None and not isinstance(self.endpoint.send_error, BrokenPipeError):
                # The connection was reset, and a send met that first; then reading finds a clean end. (With EPIPE the peer had
                # ended its stream before: Linux, tcp_reset().)
                self.endpoint.break_off(self.endpoint.send_error)
                return False
            self._end_of_stream()
        except BaseException as error:
            self.endpoint.break_off(error)
        # Half-closed: sending goes on until disconnect().
        return True

    def connection_lost(self, exc):
        endpoint = self.endpoint
        if endpoint.transport is None:
            # After a start_tls() that failed: it has reported the end itself, because not every loop does.
            return
        if exc is None and endpoint.tls and endpoint.state == State.OPEN and not self.receiver.eof:
            # This is how aiofastnet and uvloop report a stream that ends without close_notify.
            if self._may_be_cut_off():
                self._tls_ended()
            else:
                exc = _truncated()
        if endpoint.loss is None:
            endpoint.loss = exc
        endpoint.close(State.LOST if endpoint.state == State.OPEN or endpoint.state == State.LOST else State.CLOSED)
        on_end = None
        if self.receiver.on_at_eof is None or not self.is_connected:
            on_end, self._on_end = self._on_end, None
        # Otherwise bytes from before the end of a TLS stream are still unread, and on_end is called when they are taken.
        try:
            if on_end is not None:
                # Before the waiting tasks are woken, because their next calls may meet the next connection.
                on_end(self)
        finally:
            try:
                self._tell_all()
            except MemoryError:
                # Tried once more, because nobody calls this again. What is done already is not repeated.
                self._tell_all()

    def _tell_all(self):
        try:
            self.sender.end(True)
        finally:
            self.receiver.end(True)
        self.endpoint.on_timer = self.endpoint.on_send_error = None
        self.receiver.on_unasked = None
        if self._on_end is None:
            self.receiver.on_at_eof = None
        for closed in self._closed or ():
            (<Waiter>closed).wake(False)

    def pause_writing(self):
        self.sender.transport_is_full()

    def resume_writing(self):
        self.sender.transport_is_empty()

    def _tls_ended(self):
        # All loops close the transport now, whatever eof_received() returns, and drop what is sent later.
        if self.endpoint.state != State.OPEN:
            return
        try:
            self.sender.peer_ended(BrokenPipeError(errno.EPIPE, "the peer has ended the TLS connection"))
            # asyncio calls eof_received() with and without a close_notify. It also does so with decrypted bytes left, if the
            # TCP stream ended when the last read had just filled its buffer (sslproto._do_flush). So the object is read.
            # aiofastnet has one that cannot be read, and calls only after a close_notify.
            ssl_object = self.endpoint.transport.get_extra_info("ssl_object")
            notified = not isinstance(ssl_object, ssl.SSLObject) or self._read_rest(ssl_object)
            if not notified and not self._may_be_cut_off():
                self.endpoint.loss = _truncated()
                return
            if self._eof_is_loss:
                self._end_of_stream_is_loss()
                return
            self._end_of_stream()
        except BaseException as error:
            self.endpoint.break_off(error)

    def _may_be_cut_off(self):
        # Whether an end without close_notify counts as the end of the stream. Not during the handshake of start_tls().
        context = self.endpoint.transport.get_extra_info("sslcontext")
        if context is None:
            return False
        return bool(context.options & _IGNORE_UNEXPECTED_EOF)

    def _end_of_stream(self):
        self.receiver.eof = True
        # Before the waiting task is woken, because it may look at once.
        self.receiver.tell_at_eof()
        self.receiver.end(True)

    def _read_rest(self, ssl_object):
        """Receive what `ssl_object` still holds. Returns whether a close_notify follows."""
        while True:
            buffer = self.receiver.next_buffer()
            try:
                n = ssl_object.read(len(buffer), buffer)
            except ssl.SSLZeroReturnError:
                return True
            except ssl.SSLError:
                return False
            if not n:
                return True
            self.receiver.received(n)

    def _timer_fired(self):
        if self.endpoint.is_forked():
            return
        # First, because a task that fails below may wait again at once, and then needs a timer.
        self.endpoint.timer = None
        if self.endpoint.closing_failed:
            # asyncio's transport may have failed before it left the selector, which would keep it and its socket open for ever.
            with contextlib.suppress(Exception):
                transport = self.endpoint.transport
                transport.abort()
                self.endpoint.loop.remove_reader(transport.get_extra_info("socket").fileno())
            self.connection_lost(self.endpoint.loss)
            return
        self._look_at_deadlines(monotonic(), LAST_TURNS)

    def _look_at_deadlines(self, double now, int turns):
        # Fails the waits that were due at `now`, but only after `turns` turns of the loop: see last_turns.py.
        cdef double deadline

        try:
            if turns and (self.receiver.is_due(now) or self.sender.is_due(now)):
                self.endpoint.loop.call_soon(self._look_at_deadlines, now, turns - 1)
                return
            for deadline in (self.receiver.expire(now), self.sender.expire(now)):
                if deadline and self.endpoint.transport is not None:
                    self.endpoint.arm_timer(deadline, monotonic())
        except BaseException as error:
            self.endpoint.break_off(error)

    # ---- What NetworkClient calls ----

    @property
    def is_open(self):
        """Whether sending works: connected, not closing, not lost, no send has failed, and the loop is open."""
        return (
            self.endpoint.state == State.OPEN and self.endpoint.send_error is None and not self.endpoint.loop.is_closed()
        )

    @property
    def is_connected(self):
        """Whether it is open, and the peer has not ended its stream. After such an end: whether bytes are unread."""
        return self._unread_at_the_end() > 0 if self.receiver.eof else self.is_open

    @property
    def at_eof(self):
        """Whether the peer has ended its stream, and all that came before is taken."""
        return self.receiver.is_at_eof()

    @property
    def peer_ended(self):
        """Whether the peer has ended its stream, in order."""
        return self.receiver.eof

    def is_reusable(self, receiver):
        """Whether another user could begin here as on a new connection, by what the loop has read.

        Args: receiver: What the client receives from; another one stands in between two connections.
        """
        return (
            receiver is self.receiver
            and self.endpoint.state == State.OPEN
            and self.endpoint.send_error is None
            and self.receiver.is_idle()
            and self.sender.is_idle()
            and not self.endpoint.loop.is_closed()
        )

    cdef Py_ssize_t _unread_at_the_end(self) except -1:
        # Unread bytes from before the end of the stream. Over TLS the connection is lost by then, but only a send can raise
        # that. Once one has, unread bytes keep nobody from connecting again.
        return 0 if self._is_settled() else self.receiver.unread()

    def left_at_the_end(self):
        """After an orderly end: the unread and the unsent bytes, which connecting again would drop. Else 0, 0."""
        if not self.receiver.eof or self._is_settled():
            return 0, 0
        return self.receiver.unread(), max(self.sender.pending(), self.endpoint.undelivered)

    cdef bint _is_settled(self) except -1:
        # Closed by this side, or the loss has been raised, or the loop is closed.
        return (
            self.endpoint.state == State.CLOSING
            or self.endpoint.state == State.CLOSED
            or self.endpoint.loss_reported
            or self.endpoint.loop.is_closed()
        )

    def totals(self, tuple past not None):
        """bytes_received, bytes_sent, receives, sends of this connection and, as `past`, of those before it."""
        return (
            <long long>past[0] + self.receiver.bytes_received,
            <long long>past[1] + self.sender.bytes_sent,
            <long long>past[2] + self.receiver.receives,
            <long long>past[3] + self.sender.sends,
        )

    @property
    def config(self):
        """The config of this connection. Of several hosts it names the one that accepted."""
        return self.endpoint.config

    @property
    def is_tls(self):
        """Whether TLS, or its handshake, has begun."""
        return self.endpoint.tls

    @property
    def tls_of_proxy(self):
        """Whether the transport's TLS is that of a proxy, which ends it: none has begun with the peer."""
        return self.endpoint.tls_of_proxy

    @tls_of_proxy.setter
    def tls_of_proxy(self, bint value):
        self.endpoint.tls_of_proxy = value

    @property
    def has_transport(self):
        """Whether there is something to close."""
        return self.endpoint.transport is not None

    @property
    def state(self):
        return ("unconnected", "open", "closing", "closed", "lost")[self.endpoint.state]

    @property
    def last_activity(self):
        return self.endpoint.last_activity

    @property
    def loss(self):
        return self.endpoint.cause()

    def extra_info(self, name):
        return None if self.endpoint.transport is None else self.endpoint.transport.get_extra_info(name)

    def unusable(self):
        """The error for a connection that this side has not made, has given back or has closed; None for any other."""
        return self.endpoint.unusable()

    def check_user(self):
        self.endpoint.check_user()
        self.endpoint.check_loop()

    def start_tls(self):
        """Prepare for TLS, and return the plain transport. What is sent from now on waits for `tls_started()`."""
        if self.receiver.eof:
            raise self.endpoint.error(ConnectionLostError, "the peer has ended its stream", "start_tls")
        self.sender.hold_for_tls()
        self.receiver.start_tls()
        self.endpoint.tls = True
        self.endpoint.tls_of_proxy = False
        return self.endpoint.transport

    def tls_started(self, transport):
        """Go on with the TLS `transport`: what was sent meanwhile, and all that follows, leaves by it."""
        self.endpoint.transport = transport
        transport.set_write_buffer_limits(high=1)  # see connection_made()
        self.sender.transport_is_empty()

    def watch(self, on_end, bint eof_is_loss):
        """Call `on_end(self)` when the connection has ended; at once if it has.

        With `eof_is_loss` the peer's end of stream ends the connection. Otherwise `on_end` is also called when that end
        has come and all before it is taken.
        """
        if self.endpoint.transport is None:
            on_end(self)
            return
        self._on_end = on_end
        self._eof_is_loss = eof_is_loss
        if eof_is_loss:
            self.endpoint.on_send_error = self._sending_failed
            if self.receiver.eof:
                self._end_of_stream_is_loss()
            elif self.endpoint.send_error is not None:
                self._sending_failed()
        else:
            self.receiver.on_at_eof = self._at_eof
            self.receiver.tell_at_eof()

    def _at_eof(self):
        if self._on_end is not None:
            self._on_end(self)

    def watch_unasked(self, on_bytes):
        """Call `on_bytes(self)` each time that bytes come while nobody waits for any, until the connection has ended."""
        if self.endpoint.transport is not None:
            self.receiver.on_unasked = functools.partial(on_bytes, self)

    def lose(self, error):
        """End the connection as lost because of `error`. What has arrived can still be taken."""
        self.endpoint.break_off(error)

    def _end_of_stream_is_loss(self):
        # From now on a take raises. (A take of on_connect may have returned the end.)
        self.receiver.eof = False
        error = self.endpoint.send_error
        self.endpoint.break_off(EOFError("the peer ended its stream") if error is None else error)

    def _sending_failed(self):
        # Reading goes on however much is unread, so that the end is found.
        if self.endpoint.transport is not None:
            self.receiver.read_to_the_end()

    def close(self, bint now=False):
        """Begin to close: what was accepted is sent, nothing more is accepted, and unread bytes are dropped.

        Args:
            now: If all has left, the transport is closed before this returns. Only for a task of the loop: other code
                may run inside of get_buffer(), where uvloop allows no closing.
        """
        if self.endpoint.state == State.OPEN:
            self.endpoint.state = State.CLOSING
            try:
                self.receiver.discard_all()
                self.receiver.end(False)
                self.sender.close_when_empty(now)
            except BaseException:
                self.abort()
                raise

    def abort(self):
        """Close at once. If accepted bytes have not left, they are dropped and the connection is reset. For any state."""
        if self.endpoint.transport is None:
            return
        self.endpoint.check_user()
        if self.endpoint.loop.is_closed():
            return self._forget()
        was_open = self.endpoint.state == State.OPEN
        if self.endpoint.state != State.LOST:
            # From here on nothing leaves, although the transport stays until connection_lost().
            self.endpoint.state = State.CLOSED
        try:
            if was_open:
                self.receiver.discard_all()
                self.receiver.end(False)
        finally:
            self.endpoint.abort_transport()

    def drop(self, error):
        """Close at once, because nobody knows what the next bytes belong to. As a loss if somebody watches for one."""
        if self._on_end is None:
            self.abort()
        else:
            self.receiver.discard_all()
            self.endpoint.break_off(error)
        # They are dropped on purpose, so `disconnect()` raises no error about them.
        self.take_undelivered()

    def wait_closed(self):
        """A waiter for one task, which is done when the transport is gone; None if it is."""
        if self.endpoint.transport is not None and self.endpoint.loop.is_closed():
            self._forget()
        if self.endpoint.transport is None:
            return None
        closed = new_waiter(self.endpoint.loop)
        if self._closed is None:
            self._closed = []
        self._closed.append(closed)
        return closed

    def take_undelivered(self):
        """How many accepted bytes never left; 0 if some call has raised the loss. From now on the caller reports it."""
        if self.endpoint.loss_reported:
            return 0
        self.endpoint.loss_reported = True
        return self.endpoint.undelivered

    def abandon(self, close=None):
        """Close because the last user is gone. For any thread, also after the loop was closed.

        Args:
            close: What the loop calls in place of `abort()`.
        """
        loop = self.endpoint.loop
        if self.endpoint.is_forked():
            # The parent process goes on using the socket and the selector of the loop.
            return
        if loop.is_closed():
            self._forget()
        else:
            # Not at once: this may run in a collection of garbage inside of get_buffer(), where uvloop allows no closing.
            loop.call_soon_threadsafe(self.abort if close is None else close)

    def _forget(self):
        # The loop is closed and calls nothing any more. The transport closes its socket when it is collected.
        if self.sender.pending():
            self.endpoint.reset_on_close()
        self.endpoint.timer = self.endpoint.on_timer = self.endpoint.on_send_error = self._on_end = None
        self.endpoint.close(State.CLOSED)
        self.receiver.discard_all()

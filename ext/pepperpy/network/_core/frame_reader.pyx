"""Takes messages out of a connection. The framer says where one ends, the receiver has the bytes.

As in all receives, `take` is synchronous, and the one place where bytes change owner; `wait` gives an awaitable that
ends when another take is worth it. Bytes that are no message stay where they are, and every later take raises.

Python code that runs for a message (a user's `decode`, JSON) may do anything, also with this connection. So no pointer
is kept across it, and afterwards it is checked that it has taken no bytes.
"""

cimport cython
from pepperpy.network._core.destination cimport Destination
from pepperpy.network._core.endpoint cimport Endpoint
from pepperpy.network._core.framer cimport Framer, Look, text_of
from pepperpy.network._core.receive_buffer cimport ReceiveBuffer
from pepperpy.network._core.receiver cimport Receiver
from pepperpy.network._core.status cimport Status
from pepperpy.network._core.waiter cimport Waiter

from pepperpy.network.errors import DecodeError, MessageTooLargeError, ProtocolError, UsageError


class _Sign:
    def __init__(self, name):
        self._name = name

    def __repr__(self):
        return self._name


# What a take returns instead of a message. A message may be anything, so None cannot stand for these.
WAIT = _Sign("WAIT")
END = _Sign("END")

cdef object _WAIT = WAIT
cdef object _END = END


@cython.final
cdef class FrameReader:
    """Reads messages: the framer finds them, and `loads`, if it is not None, makes objects of them."""
    cdef:
        Framer _framer
        object _loads
        bint _runs_python            # ... in a take
        bint _discards               # messages that are too large are discarded
        readonly long long discarded # how many were
        # While the framer is unfinished: the buffer that the rest comes in, and where in its stream that begins. Else None.
        ReceiveBuffer _unfinished
        long long _place

    def __cinit__(self, Framer framer not None, loads, bint discards=False):
        self._framer = framer
        self._loads = loads
        self._runs_python = loads is not None or framer.runs_python
        self._discards = discards

    def hold(self, Receiver receiver not None):
        """From now on only this reader may take from the connection; every other one gets `BusyError`."""
        receiver.hold(self._framer)

    def let_go(self, Receiver receiver not None):
        """From now on every reader may take again, if it is this one that holds."""
        receiver.let_go(self._framer)

    def take(self, stream):
        """The next message, WAIT if it is not on hand, END at the end of the stream."""
        cdef:
            Receiver receiver
            ReceiveBuffer buffer
            Framer framer = self._framer
            Look found

        if type(stream) is not Receiver:
            # A stand-in between two connections (tcp/pending.py) calls this again, with the receiver that answers now.
            return stream.take_framed(self.take)
        receiver = <Receiver>stream
        buffer = receiver.buffer
        receiver.begin_take(framer)
        if receiver.has_destination():
            return receiver.end_take(self._take_destination(receiver))
        if self._unfinished is not None and self._go_on(receiver) == Look.MORE:
            return self._none_found(receiver, Look.MORE)
        if self._runs_python:
            messages = self._take_with_python(receiver, False, [])
            return messages[0] if type(messages) is list else messages
        while True:
            found = framer.look(buffer)
            if found == Look.FOUND:
                message = framer.message(buffer.head)
                buffer.discard(framer.end)
                if framer.unfinished:
                    self._begin_unfinished(receiver)
                return receiver.end_take(message)
            if found == Look.TOO_LARGE and self._discards:
                found = self._discard_message(buffer, 0)
            if found != Look.SKIP:
                return self._none_found(receiver, found)
            buffer.discard(framer.end)
            if framer.unfinished:
                self._begin_unfinished(receiver)
                return self._none_found(receiver, Look.MORE)

    def take_all(self, stream):
        """All complete messages on hand, at least one, in a list; WAIT if there is none, END at the end of the stream."""
        cdef:
            list messages = []
            Receiver receiver
            ReceiveBuffer buffer
            Framer framer = self._framer
            Py_ssize_t at = 0
            const char* head
            bint unfinished = False
            Look found

        if type(stream) is not Receiver:
            return stream.take_framed(self.take_all)
        receiver = <Receiver>stream
        buffer = receiver.buffer
        receiver.begin_take(framer)
        if receiver.has_destination():
            messages = [None]
            messages[0] = self._take_destination(receiver)
            if self._runs_python:
                # Returned alone: this message is no longer in the buffer, and an error of the next one would lose it.
                return receiver.end_take(messages)
        elif self._unfinished is not None and self._go_on(receiver) == Look.MORE:
            return self._none_found(receiver, Look.MORE)
        if self._runs_python:
            return self._take_with_python(receiver, True, messages)
        try:
            found = framer.look(buffer)
            # Nothing below runs Python code, so the bytes stay where they are.
            head = buffer.head
            while True:
                if found == Look.FOUND:
                    messages.append(framer.message(head + at))
                elif found == Look.TOO_LARGE and self._discards:
                    found = self._discard_message(buffer, at)
                if found != Look.FOUND and found != Look.SKIP:
                    break
                at += framer.end
                if framer.unfinished:
                    unfinished = True
                    found = Look.MORE
                    framer.scanned = 0
                    break
                found = framer.locate(head + at, buffer.length - at, 0)
        except MemoryError:
            # The messages that there was no memory for stay in the buffer.
            if not messages:
                raise
            framer.scanned = 0
        buffer.discard(at)
        buffer.scanned = framer.scanned
        if unfinished:
            self._begin_unfinished(receiver)
        if messages:
            return receiver.end_take(messages)
        return self._none_found(receiver, found)

    cdef Look _discard_message(self, ReceiveBuffer buffer, Py_ssize_t at) except Look.ERROR:
        # Discards the message at `at`, which is too large.
        cdef Look found = self._framer.discard_message(buffer.head + at, buffer.length - at)

        if found == Look.SKIP:
            self.discarded += 1
        return found

    cdef Status _begin_unfinished(self, Receiver receiver) except Status.ERROR:
        self._unfinished = receiver.buffer
        self._place = receiver.position()
        return Status.OK

    cdef Look _go_on(self, Receiver receiver) except Look.ERROR:
        # Consumes the bytes that belong to what was consumed last. MORE: further ones are still to come.
        cdef Framer framer = self._framer
        cdef ReceiveBuffer buffer = receiver.buffer
        cdef Look found = Look.SKIP

        # Only if no other reader has taken a part of it, and this is the same connection.
        if self._unfinished is buffer and self._place == receiver.position():
            found = framer.skip_rest(buffer.head, buffer.length)
            buffer.discard(framer.end)
            self._place += framer.end
        if found == Look.SKIP:
            self._unfinished = None
            framer.unfinished = False
        return found

    cdef object _take_destination(self, Receiver receiver):
        # The large message that this reader has waited for. It has memory of its own, and is not in the buffer. It stays where
        # it is until it is loaded: if `loads` stops the program, the next receive finds it there.
        cdef Destination destination = receiver.peek_destination()

        message = self._framer.joined(destination.lead, destination.result)
        if self._loads is not None:
            message = self._load(receiver, message, receiver.position(), 0)
        receiver.take_destination()
        return message

    cdef object _take_with_python(self, Receiver receiver, bint all, list messages):
        # Messages are consumed at the end of this function. An error behind the first message is left to the next call. So no
        # message is lost, whatever is raised.
        cdef:
            ReceiveBuffer buffer = receiver.buffer
            Framer framer = self._framer
            long long position
            Py_ssize_t scanned
            Py_ssize_t at = 0
            Py_ssize_t end
            bint unfinished = False
            Look found

        buffer.search_for(framer)
        position = receiver.position()
        scanned = buffer.scanned
        while True:
            try:
                found = framer.locate(buffer.head + at, buffer.length - at, scanned)
                scanned = framer.scanned
                self._check(receiver, position, None)
                if found == Look.TOO_LARGE and self._discards:
                    found = self._discard_message(buffer, at)
                if found != Look.FOUND and found != Look.SKIP:
                    break
                end = framer.end
                if found == Look.FOUND:
                    message = framer.message(buffer.head + at)
                    if self._loads is not None:
                        message = self._load(receiver, message, position, at + end if not messages else 0)
                    messages.append(message)
            except UsageError:
                raise
            except Exception:
                if not messages:
                    raise
                found = Look.MORE
                break
            at += end
            scanned = max(0, scanned - end)
            if framer.unfinished:
                unfinished = True
                found = Look.MORE
                break
            if found == Look.FOUND and not all:
                break
        buffer.discard(at)
        buffer.scanned = scanned
        if unfinished:
            self._begin_unfinished(receiver)
        return receiver.end_take(messages) if messages else self._none_found(receiver, found)

    cdef object _load(self, Receiver receiver, object content, long long position, Py_ssize_t end):
        # If `loads` raises an Exception, the message is consumed, up to `end`: it is whole, so the next one may be good, and
        # without that every later take would raise. Other exceptions stop the program, and consume nothing.
        cdef Destination destination = receiver.peek_destination()

        try:
            message = self._loads(content)
        except Exception as error:
            self._check(receiver, position, destination)
            failure = receiver.endpoint.error(
                DecodeError, f"message cannot be decoded: {text_of(error)}", "receive", None, error
            )
            failure.content = b"".join(content) if self._framer.in_pairs else content
            if destination is not None:
                receiver.take_destination()
            receiver.buffer.discard(end)
            if end and self._framer.unfinished:
                self._begin_unfinished(receiver)
            receiver.tell_at_eof()
            raise failure from error
        self._check(receiver, position, destination)
        return message

    cdef Status _check(self, Receiver receiver, long long position, Destination destination) except Status.ERROR:
        # After Python code has run: whether it has taken bytes, or the large message.
        if receiver.position() != position or receiver.peek_destination() is not destination:
            receiver.buffer.scanned = 0
            raise receiver.endpoint.error(UsageError, "decoding a message took other bytes of its connection", "receive")
        return Status.OK

    cdef object _none_found(self, Receiver receiver, Look found):
        cdef Framer framer = self._framer
        cdef Endpoint endpoint = receiver.endpoint

        if found == Look.MORE:
            if not receiver.check_end():
                return _WAIT
            if self._unfinished is receiver.buffer or framer.may_be_left_over(receiver.buffer.head, receiver.buffer.length):
                # The end of the stream ends it, too.
                receiver.buffer.discard(receiver.buffer.length)
                self._unfinished = None
                framer.unfinished = False
                receiver.tell_at_eof()
            elif receiver.buffer.length:
                receiver.raise_incomplete(None, "the end of a message")
            return _END
        if found == Look.TOO_LARGE:
            details = {"limit": framer.limit, "buffered": receiver.buffer.length}
            if framer.declared is not None:
                details["size"] = framer.declared
            raise endpoint.error(
                MessageTooLargeError,
                f"{framer.subject()} exceeds the limit of {framer.limit} bytes (max_size or max_message_size)",
                "receive",
                details,
            )
        cause, framer.cause = framer.cause, None
        raise endpoint.error(
            ProtocolError, f"malformed message: {framer.fault}", "receive", {"buffered": receiver.buffer.length}, cause
        )

    def wait(self, stream, timeout, previous):
        """An awaitable that ends when another take is worth it. With `previous`, the deadline of that wait holds.

        Call it right after a take that has returned WAIT.
        """
        cdef:
            Receiver receiver
            Framer framer = self._framer
            Py_ssize_t on_hand
            Py_ssize_t count
            Py_ssize_t size
            Waiter before = <Waiter>previous if isinstance(previous, Waiter) else None
            Waiter waiter

        if type(stream) is not Receiver:
            return stream.wait_framed(self.wait, timeout)
        receiver = <Receiver>stream
        on_hand = receiver.buffer.length
        if self._unfinished is not None:
            return receiver.wait_for(on_hand + 1, None, None, timeout, before)
        if framer.runs_python:
            waiter = receiver.wait_for(framer.wanted, None, framer, timeout, before)
            if framer.pause:
                receiver.look_again_after(waiter, framer.pause)
            return waiter
        count = framer.wake_at(on_hand)
        if count > on_hand:
            return receiver.wait_for(count, None, framer, timeout, before)
        # This is the beginning of a large message. Its memory grows to the announced size as bytes arrive.
        size = framer.wanted - framer.lead + framer.copied
        return receiver.fill(receiver.new_destination(size, 2 * on_hand, framer.lead, framer.copied), framer, timeout, before)

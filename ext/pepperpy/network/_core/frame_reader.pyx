"""Takes messages out of a connection's received bytes: the framer says where one ends, the receiver has the bytes.

As all receives: `take*` is synchronous, and the one place where bytes change owner; `wait` gives an awaitable that
ends when another look is worth it. What cannot be framed is left where it is, and met again by every later take.

Where Python code has to run for a message (a user's `decode`, JSON), it may do anything, also with this connection.
So no pointer is kept across it, and bytes that somebody else has taken meanwhile are not taken again.
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


# What a take returns instead of a message, which may be anything, None included.
WAIT = _Sign("WAIT")
END = _Sign("END")

cdef object _WAIT = WAIT
cdef object _END = END


@cython.final
cdef class FrameReader:
    """Messages by one framer, each then passed through `loads` if that is not None."""
    cdef:
        Framer _framer
        object _loads
        bint _runs_python
        bint _discards               # what is too large
        readonly long long discarded # messages
        # While the framer is unfinished: with what, and from where in its stream on. None otherwise.
        ReceiveBuffer _unfinished
        long long _place

    def __cinit__(self, Framer framer not None, loads, bint discards=False):
        self._framer = framer
        self._loads = loads
        self._runs_python = loads is not None or framer.runs_python
        self._discards = discards

    def take(self, stream):
        """The next message, WAIT if it is not on hand, END at the end of the stream."""
        cdef:
            Receiver receiver
            ReceiveBuffer buffer
            Framer framer = self._framer
            Look found

        if type(stream) is not Receiver:
            # What stands in for one between two connections (pending.py) asks again, with the one whose turn it is.
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
                found = self._give_up(buffer, 0)
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
                # What that raises for the next message must not cost this one, which is no longer in the buffer.
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
                    found = self._give_up(buffer, at)
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
            # What could not be made is left to the next call.
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

    cdef Look _give_up(self, ReceiveBuffer buffer, Py_ssize_t at) except Look.ERROR:
        # The message at `at`, which is too large, is discarded.
        cdef Look found = self._framer.give_up(buffer.head + at, buffer.length - at)

        if found == Look.SKIP:
            self.discarded += 1
        return found

    cdef Status _begin_unfinished(self, Receiver receiver) except Status.ERROR:
        self._unfinished = receiver.buffer
        self._place = receiver.position()
        return Status.OK

    cdef Look _go_on(self, Receiver receiver) except Look.ERROR:
        # Consumes what still belongs to what was consumed last. MORE: and there is more of it to come.
        cdef Framer framer = self._framer
        cdef ReceiveBuffer buffer = receiver.buffer
        cdef Look found = Look.SKIP

        # What somebody else has taken a part of is his, and another connection has nothing to do with it.
        if self._unfinished is buffer and self._place == receiver.position():
            found = framer.pass_over(buffer.head, buffer.length)
            buffer.discard(framer.end)
            self._place += framer.end
        if found == Look.SKIP:
            self._unfinished = None
            framer.unfinished = False
        return found

    cdef object _take_destination(self, Receiver receiver):
        # The large message that this reader has waited for; in memory of its own, it is no longer in the buffer.
        cdef Destination destination = receiver.take_destination()

        if self._loads is None:
            return destination.result
        try:
            return self._load(receiver, destination.result, receiver.position(), 0)
        except DecodeError:
            raise
        except BaseException:
            receiver.put_back(destination)
            raise

    cdef object _take_with_python(self, Receiver receiver, bint all, list messages):
        # Nothing is consumed before the end, and what fails behind the first message is left to the next call: so
        # no message is lost, whatever is raised in between.
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
                self._check(receiver, position)
                if found == Look.TOO_LARGE and self._discards:
                    found = self._give_up(buffer, at)
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
        # Whatever the function raises, the message is consumed, up to `end`: it was whole, so the next one may be good, and
        # one that can never be loaded must not be met for ever. Not so where the program is being stopped.
        try:
            message = self._loads(content)
        except Exception as error:
            self._check(receiver, position)
            failure = receiver.endpoint.error(
                DecodeError, f"message cannot be decoded: {text_of(error)}", "receive", None, error
            )
            failure.content = content
            receiver.buffer.discard(end)
            if end and self._framer.unfinished:
                self._begin_unfinished(receiver)
            receiver.tell_at_eof()
            raise failure from error
        self._check(receiver, position)
        return message

    cdef Status _check(self, Receiver receiver, long long position) except Status.ERROR:
        if receiver.position() != position:
            receiver.buffer.scanned = 0
            raise receiver.endpoint.error(UsageError, "decoding a message took other bytes of its connection", "receive")
        return Status.OK

    cdef object _none_found(self, Receiver receiver, Look found):
        cdef Framer framer = self._framer
        cdef Endpoint endpoint = receiver.endpoint

        if found == Look.MORE:
            if not receiver.check_end():
                return _WAIT
            if self._unfinished is receiver.buffer or framer.is_nothing(receiver.buffer.head, receiver.buffer.length):
                # The end of the stream finishes it.
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
        """An awaitable that ends when another take is worth trying; the deadline is that of the `previous` one.

        The take has just returned WAIT.
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
        # The beginning of a large message. It grows to its announced size as bytes arrive.
        size = framer.wanted - framer.lead + framer.copied
        return receiver.fill(receiver.new_destination(size, 2 * on_hand, framer.lead, framer.copied), framer, timeout, before)

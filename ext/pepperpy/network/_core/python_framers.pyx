"""Framers that ask a user's codec, written in Python, where a message ends. See `codec_protocols.py`."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.time cimport monotonic

from pepperpy.network._core.framer cimport Framer, Look, text_of

from pepperpy.network.errors import NetworkError

cdef extern from *:
    """
    /* Bytes of an unfinished message from which on a codec that does not know its size is asked less often; see
       PythonFramer._put_off(). Below that, asking costs less than waiting. Arbitrary. */
    #define SLOW_FROM (64 * 1024)
    """
    const Py_ssize_t SLOW_FROM


cdef class OwnFramer(Framer):
    """What both kinds share: a copy of the unread bytes, which codecs may keep, and the reading of their answers."""
    cdef:
        object _no_message           # stands in an answer for bytes that are no message
        str _method                  # the codec's method, for error messages
        bytes _seen                  # the last copy: it ends with the first `scanned` unread bytes; None: copy again
        object _message
        bint _knows_nothing          # whether its last answer was None

    def __cinit__(self, limit, *args):
        self.runs_python = True

    cdef object message(self, const char* data):
        message, self._message = self._message, None
        return message

    cdef bint may_be_left_over(self, const char* data, Py_ssize_t n) noexcept:
        # A text protocol may end with line ends: they are no message that was cut off. A codec that answered with a number
        # counts bytes, and expects more.
        cdef Py_ssize_t i

        if not self._knows_nothing:
            return False
        for i in range(n):
            if data[i] != c"\r" and data[i] != c"\n":
                return False
        return True

    cdef Look _fail(self, object error) noexcept:
        self.fault = f"{self._method}() of the codec: {text_of(error)}"
        self.cause = error
        return Look.MALFORMED

    cdef Look _judge(self, object answer, Py_ssize_t start, Py_ssize_t given, Py_ssize_t before) except Look.ERROR:
        # `answer` is about `given` bytes, which begin at the index `start`, behind `before` bytes of the same message.
        cdef Py_ssize_t n = before + given
        cdef Py_ssize_t least = start if before else start + 1

        self.unfinished = self._knows_nothing = False
        self.pause = 0
        if type(answer) is tuple and len(answer) == 2:
            message, end = answer
            if type(end) is int and end >= least and message is self._no_message:
                return self.skip(end - start + before, n)
            if type(end) is not int or not least <= end <= start + given:
                raise TypeError(f"{self._method}() must return an end from {least} to {start + given}, not {end!r}")
            self._message = message
            self.end = end - start + before
            return Look.FOUND
        if answer is None:
            self._knows_nothing = True
            self.wanted = n + 1
        elif type(answer) is not int or answer <= given:
            raise TypeError(
                f"{self._method}() must return (message, end), None, or an int above the {given} bytes that it was given, "
                f"not {answer!r}"
            )
        elif before + answer > self.limit:
            self.declared = before + answer
            return Look.TOO_LARGE
        else:
            self.wanted = before + answer
        if n >= self.limit:
            self.declared = None
            return Look.TOO_LARGE
        return Look.MORE


@cython.final
cdef class PythonFramer(OwnFramer):
    """Asks the `decode` of a codec, again and again, with all unread bytes."""
    cdef:
        object _decode
        Py_ssize_t _put_off_at       # unread bytes when the wait for a quarter more began; 0: there is no such wait
        int _put_off_times           # answers since then

    def __cinit__(self, limit, decode, no_message):
        self._decode = decode
        self._no_message = no_message
        self._method = "decode"

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR:
        # Copy `data` first: `decode`, and the destructor of a message that nobody took, may run any code.
        cdef Py_ssize_t start
        cdef bytes seen = self._seen
        cdef double began
        cdef Look found

        if n and (scanned < n or seen is None):
            seen = PyBytes_FromStringAndSize(data, n)
        self._seen = self._message = None
        self.scanned = n
        if not n:
            self.wanted = 1
            self.pause = 0
            return Look.MORE
        start = PyBytes_GET_SIZE(seen) - n
        began = monotonic() if n >= SLOW_FROM else 0.0
        try:
            answer = self._decode(seen, start)
        except NetworkError:
            raise
        except Exception as error:
            return self._fail(error)
        self._seen = seen
        found = self._judge(answer, start, n, 0)
        if began and self._knows_nothing and found == Look.MORE:
            self._put_off(n, scanned, monotonic() - began)
        else:
            self._put_off_at = 0
        return found

    cdef void _put_off(self, Py_ssize_t n, Py_ssize_t scanned, double seconds) noexcept:
        # A codec that does not know how much is missing is asked again when a quarter more has come, or after as long as its
        # answers since the last quarter took. So the answers take at most half of the time, and less if bytes only drip;
        # otherwise a peer that sends many bytes, and then one now and then, keeps half a processor busy (measured). A
        # complete message waits no longer than those answers took. Each message begins anew, also if somebody else has taken
        # the one before, or its connection is gone: then fewer bytes of this one have been seen.
        if scanned < self._put_off_at or n >= self._put_off_at + self._put_off_at // 4:
            self._put_off_at = n
            self._put_off_times = 0
        self._put_off_times += 1
        self.wanted = self._put_off_at + self._put_off_at // 4
        self.pause = self._put_off_times * seconds


@cython.final
cdef class FeedFramer(OwnFramer):
    """Feeds the decoder of a codec, which keeps state: it gets each byte of a message once.

    The bytes stay unread until the message is complete, so a cancelled receive has taken nothing. If somebody else takes
    some of them, a new decoder begins with the rest.
    """
    cdef:
        object _make_decoder
        object _feed                 # the method of the first message's decoder; None: there is no decoder yet
        Py_ssize_t _fed              # bytes that it has been given

    def __cinit__(self, limit, make_decoder, no_message):
        self._make_decoder = make_decoder
        self._no_message = no_message
        self._method = "feed"

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR:
        # Copy `data` first, as above. `scanned` differs from `_fed` if somebody has taken bytes, or searched for something
        # else.
        cdef bytes seen = self._seen
        cdef object feed = self._feed
        cdef Py_ssize_t fed = self._fed if feed is not None and scanned == self._fed else 0
        cdef Py_ssize_t start
        cdef Look found

        if fed and n == fed:
            self.scanned = n
            return Look.MORE
        if n and (fed or scanned < n or seen is None):
            seen = PyBytes_FromStringAndSize(data + fed, n - fed)
        self._seen = self._message = self._feed = None
        self.scanned = n
        if not n:
            self.wanted = 1
            return Look.MORE
        start = PyBytes_GET_SIZE(seen) - (n - fed)
        try:
            if not fed:
                feed = self._make_decoder().feed
            answer = feed(seen, start)
        except NetworkError:
            raise
        except Exception as error:
            return self._fail(error)
        found = self._judge(answer, start, n - fed, fed)
        if found == Look.MORE:
            self._feed = feed
            self._fed = n
        elif found == Look.FOUND or found == Look.SKIP:
            self._seen = seen
        return found

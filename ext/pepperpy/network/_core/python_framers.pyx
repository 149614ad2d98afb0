"""Where a message ends by the rule of a user's codec, written in Python. `messages/codecs.py` says what such a codec has."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.time cimport monotonic

from pepperpy.network._core.framer cimport Framer, Look, words_of

from pepperpy.network.errors import NetworkError

cdef extern from *:
    """
    /* From so many bytes on that an answer of "I do not know" has cost, the next question waits; see OwnFramer._put_off().
       Below, asking costs less than waiting. Arbitrary. */
    #define SLOW_FROM (64 * 1024)
    """
    const Py_ssize_t SLOW_FROM


cdef class OwnFramer(Framer):
    """What both kinds have in common: a copy of what is on hand, which codecs may keep, and the sense of their answers."""
    cdef:
        object _no_message           # what an answer has in place of a message that is none
        str _method                  # of the codec, for messages of errors
        bytes _seen                  # its last bytes are the first `scanned` on hand; None: to be copied anew
        object _message
        bint _knows_nothing          # its last answer was None

    def __cinit__(self, limit, *args):
        self.runs_python = True

    cdef object message(self, const char* data):
        message, self._message = self._message, None
        return message

    cdef bint is_nothing(self, const char* data, Py_ssize_t n) noexcept:
        # Of text, line ends alone are no message that was cut off. Who counts bytes has answered with a number.
        cdef Py_ssize_t i

        if not self._knows_nothing:
            return False
        for i in range(n):
            if data[i] != c"\r" and data[i] != c"\n":
                return False
        return True

    cdef Look _fail(self, object error) noexcept:
        self.fault = f"{self._method}() of the codec: {words_of(error)}"
        self.cause = error
        return Look.MALFORMED

    cdef Look _judge(self, object answer, Py_ssize_t start, Py_ssize_t given, Py_ssize_t before) except Look.ERROR:
        # `answer` to `given` bytes, which begin at the index `start`, behind `before` bytes of the same message.
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
    """Asks the `decode` of a codec, with all that is on hand of a message, again and again."""
    cdef:
        object _decode
        Py_ssize_t _put_off_at       # bytes on hand when the wait for a quarter more began; 0: there is none
        int _put_off_times           # since then

    def __cinit__(self, limit, decode, no_message):
        self._decode = decode
        self._no_message = no_message
        self._method = "decode"

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR:
        # `data` is copied first of all: `decode`, and the end of a message that nobody took, may run anything.
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
        # Who does not know how much is missing is asked again when a quarter more has come, or after as long as the answers
        # since the last quarter took: so they cost half of the time at most, and less and less of it where bytes only drip
        # (otherwise a peer that sends one now and then, behind many, keeps half a processor busy: measured). A message that
        # is whole waits no longer than those answers took. Each message begins anew: also where somebody else has taken the
        # one before, or its connection is gone, and less has been seen of this one.
        if scanned < self._put_off_at or n >= self._put_off_at + self._put_off_at // 4:
            self._put_off_at = n
            self._put_off_times = 0
        self._put_off_times += 1
        self.wanted = self._put_off_at + self._put_off_at // 4
        self.pause = self._put_off_times * seconds


@cython.final
cdef class FeedFramer(OwnFramer):
    """Feeds the decoder of a codec, which keeps state: it is given each byte of a message once.

    The bytes stay unread until the message is whole, so a receive that is cancelled has taken nothing. Where somebody else
    takes one of them, a new decoder begins with the rest.
    """
    cdef:
        object _make_decoder
        object _feed                 # of the decoder of the first message on hand; None: it has been given nothing
        Py_ssize_t _fed              # bytes

    def __cinit__(self, limit, make_decoder, no_message):
        self._make_decoder = make_decoder
        self._no_message = no_message
        self._method = "feed"

    cdef Look locate(self, const char* data, Py_ssize_t n, Py_ssize_t scanned) except Look.ERROR:
        # `data` is copied first of all, as above. `scanned` is another number than `_fed` once somebody has taken bytes, or
        # looked for something else.
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

"""Status lines: the version, the status, the reason, and the blanks between them."""

from __future__ import annotations

import http

from support.behaviours.model import MALFORMED, Behaviour, Whole, family, shown, sized

OK = Whole(b"ok")
# These have no body (bodiless.py).
_BODILESS = {204, 205, 304}
_FINAL = [int(status) for status in http.HTTPStatus if status >= 200 and status not in _BODILESS]
_UNREGISTERED = [209, 299, 310, 399, 419, 444, 499, 512, 520, 599]

_REGISTERED = [
    Behaviour(
        f"status {status}",
        "RFC 9110, section 15: a final status; the body is framed as for any other.",
        sized(first=b"HTTP/1.1 %d %b" % (status, http.HTTPStatus(status).phrase.encode())),
        Whole(b"ok", status),
    )
    for status in _FINAL
]
_OTHERS = [
    Behaviour(
        f"unregistered status {status}",
        "RFC 9110, section 15: a client knows an unknown status by its first digit.",
        sized(first=b"HTTP/1.1 %d X" % status),
        Whole(b"ok", status),
    )
    for status in _UNREGISTERED
]
_TOO_HIGH = [
    Behaviour(
        f"status {status}, above 599",
        "RFC 9110, section 15: invalid, but to be taken like a 5xx; it is reported as it came.",
        sized(first=b"HTTP/1.1 %d X" % status),
        Whole(b"ok", status),
    )
    for status in (600, 666, 799, 999)
]

_WRONG_STATUSES = [
    *(b"000", b"001", b"099", b"20", b"2", b"", b"2000", b"20000000000000000000", b"2x0", b"x00", b"20x", b"OK"),
    *(b"+20", b"-20", b"-200", b"+200", b"2.0", b"0x2", b"2_0", b"\xb2\xb00", b"\xd9\xa2\xd9\xa0\xd9\xa0", b"2 0 0"),
]
_BAD_STATUSES = family(
    "wrong status",
    "RFC 9112, section 4: status-code = 3DIGIT; below 100 there is no class that it could belong to.",
    [(shown(status) or "none", sized(first=b"HTTP/1.1 %b OK" % status)) for status in _WRONG_STATUSES],
    MALFORMED,
)

_REASONS = {
    "none, with its blank": b" ",
    "none, without its blank": b"",
    "of several words": b" Not Really All That OK",
    "with digits and colons": b" 200: OK 1/2",
    "with a tab": b" a\tb",
    "in Latin-1": b" Gef\xe4llt",
    "in UTF-8": " Gefällt €".encode(),
    "of 1000 bytes": b" " + b"r" * 1000,
    "that looks like a status line": b" HTTP/1.1 404 Not Found",
    "with a blank behind": b" OK ",
}
_GOOD_REASONS = [
    Behaviour(
        f"reason {which}",
        "RFC 9112, section 4: reason-phrase = 1*( HTAB / SP / VCHAR / obs-text ), and may be left out.",
        sized(first=b"HTTP/1.1 200" + reason),
        OK,
    )
    for which, reason in _REASONS.items()
]
_ODD_REASONS = family(
    "control character in the reason",
    "Not among the characters of RFC 9112, section 4. No client needs a reason: it is made printable if it is shown.",
    [(shown(bytes([code])), sized(first=b"HTTP/1.1 200 a%cb" % code)) for code in (0, 1, 7, 8, 11, 12, 27, 31, 127)],
    OK,
)

_VERSIONS = [b"HTTP/0.9", b"HTTP/2.0", b"HTTP/2", b"HTTP/3.0", b"HTTP/1.10", b"HTTP/1.", b"HTTP/1", b"HTTP/.1"]
_VERSIONS += [b"HTTP/11.1", b"HTTP/01.1", b"HTTP/1.01", b"HTTP/a.b", b"HTTP/1.x", b"HTTP/", b"HTTP", b"HTTP/-1.1"]
_VERSIONS += [
    b"http/1.1",
    b"Http/1.1",
    b"HTTP /1.1",
    b"HTTP/ 1.1",
    b"HTTP/1 .1",
    b"HTTP\\1.1",
    b"HTTPS/1.1",
    b"XHTTP/1.1",
]
_VERSIONS += [b"RTSP/1.0", b"SIP/2.0", b"ICE/1.0", b"ICY", b"", b"\xef\xbb\xbfHTTP/1.1", b"HTTP/1,1", b"HTTP/1.1\x00"]
_BAD_VERSIONS = family(
    "wrong version",
    'RFC 9112, section 2.3: HTTP-version = %s"HTTP/" DIGIT "." DIGIT; another major version is another protocol.',
    [(shown(version) or "none", sized(first=version + b" 200 OK")) for version in _VERSIONS],
    MALFORMED,
)
_MINOR = family(
    "minor version",
    "RFC 9110, section 2.5: a higher minor version of the same major one is to be read like the highest known. llhttp "
    "and aiohttp refuse it, and no server sends it: refusing is as good, and what is right here.",
    [(version.decode(), sized(first=version + b" 200 OK")) for version in (b"HTTP/1.2", b"HTTP/1.9")],
    MALFORMED,
)

_BLANKS = [
    Behaviour(
        "two blanks behind the status",
        "RFC 9112, section 4, allows lenient parsing by words; the reason then is what follows.",
        sized(first=b"HTTP/1.1 200  OK"),
        OK,
    ),
    *family(
        "blanks in the status line",
        "RFC 9112, section 4: one SP between version and status. A decision: another blank is refused, as llhttp does.",
        [
            ("two behind the version", sized(first=b"HTTP/1.1  200 OK")),
            ("a tab behind the version", sized(first=b"HTTP/1.1\t200 OK")),
            ("a tab behind the status", sized(first=b"HTTP/1.1 200\tOK")),
            ("one in front", sized(first=b" HTTP/1.1 200 OK")),
            ("a tab in front", sized(first=b"\tHTTP/1.1 200 OK")),
            ("a vertical tab behind the version", sized(first=b"HTTP/1.1\x0b200 OK")),
            ("none behind the version", sized(first=b"HTTP/1.1200 OK")),
            ("none behind the status", sized(first=b"HTTP/1.1 200OK")),
        ],
        MALFORMED,
    ),
    *(
        Behaviour(
            f"{count} line ends before the status line",
            "RFC 9112, section 2.2, lets a server ignore them before a request; llhttp, curl and browsers do so before "
            "an answer, too. A decision: one is skipped, and a few are or are not. Endless ones are among the limits.",
            b"\r\n" * count + sized(),
            OK,
            may_refuse=count > 1,
        )
        for count in (1, 2, 4)
    ),
]
_NOT_HTTP = family(
    "another protocol",
    "What answers is no server of HTTP; what it said is not the body of an answer.",
    [
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("SMTP", b"220 mail.example.com ESMTP\r\n\r\n"),
        ("FTP", b"220 (vsFTPd 3.0.3)\r\n\r\n"),
        ("Redis", b"-ERR unknown command 'GET'\r\n\r\n"),
        ("HTML", b"<html><body>Bad Request</body></html>\r\n\r\n"),
        ("JSON", b'{"error": "bad request"}\r\n\r\n'),
        ("a request", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n"),
        ("HTTP/2 frames", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\r\n\r\n"),
        ("NULs", bytes(64) + b"\r\n\r\n"),
        ("0xff", b"\xff" * 64 + b"\r\n\r\n"),
    ],
    MALFORMED,
)

BEHAVIOURS = [
    *_REGISTERED, *_OTHERS, *_TOO_HIGH, *_BAD_STATUSES, *_GOOD_REASONS, *_ODD_REASONS, *_BAD_VERSIONS, *_MINOR,
    *_BLANKS, *_NOT_HTTP,
]  # fmt: skip

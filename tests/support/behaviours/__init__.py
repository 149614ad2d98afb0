"""What servers of HTTP/1.1 do, as data: what each sends, and what is right then.

`ALL` has each behaviour by its name; `SUBJECTS` has them by subject, one module each. They are data only:
`support/http_lab.py` plays them to a client, `support/http_bare.py` to a parser alone, and
`support/http_differences.py` has where these do something else than what is right.
"""

from __future__ import annotations

from support.behaviours import (
    bodiless,
    chunked,
    encodings,
    ends,
    framing,
    heads,
    interim,
    limits,
    names,
    reuse,
    status,
    trailers,
)
from support.behaviours.model import Behaviour

SUBJECTS: dict[str, list[Behaviour]] = {
    module.__name__.rpartition(".")[2]: module.BEHAVIOURS
    for module in (
        *(status, heads, names, framing, chunked, trailers, bodiless, interim, ends, encodings, reuse, limits),
    )
}
ALL: dict[str, Behaviour] = {one.name: one for subject in SUBJECTS.values() for one in subject}

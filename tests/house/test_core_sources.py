"""What the sources of the compiled core must not contain, because the compiler makes a bug of it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "ext" / "pepperpy" / "network" / "_core"

# Text and comments, in which words mean nothing; brackets; and `for`, which is a loop outside of brackets only.
TOKENS = re.compile(
    r'"""[\s\S]*?"""|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|#[^\n]*|[\[({\])}]|\bfor\b',
)


def comprehensions_in(text: str) -> list[int]:
    """The lines with a comprehension or a generator expression."""
    depth = 0
    found = []
    for token in TOKENS.finditer(text):
        if token[0] in "[({":
            depth += 1
        elif token[0] in "])}":
            depth -= 1
        elif token[0] == "for" and depth > 0:
            found.append(text.count("\n", 0, token.start()) + 1)
    return found


def test_the_core_has_no_comprehension() -> None:
    """Where there is no memory for a list to grow, a list comprehension of Cython 3.3 frees the new item twice.

    It gives up its reference to the item before it knows that the item was appended (cython/cython#7748). The process
    crashes later, anywhere. Sets and dicts have no such bug, nor have lists of objects that somebody else holds. They
    are refused here too, as are generator expressions, of which `list()` and `sorted()` make lists: so nobody has to
    tell which is which.

    It may go when pyproject.toml requires a Cython without the bug: when `Sender.immutable()`, written as a
    comprehension, passes tests/core/test_allocations_sending.py under valgrind.
    """
    sources = sorted([*CORE.glob("*.pyx"), *CORE.glob("*.pxd")])
    found = [f"{path.name}:{line}" for path in sources for line in comprehensions_in(path.read_text())]
    assert len(sources) > 20
    assert found == [], "write a loop that appends: comprehensions of Cython 3.3 free an item twice without memory"


def test_a_comprehension_is_found_wherever_it_begins_and_a_loop_is_none() -> None:
    assert comprehensions_in("for a in b:  # [x for x in y]\n    print('[', a)\n") == []
    assert comprehensions_in('"""(for\nall)"""\ncdef list c = [\n    x\n    for x in y\n]\n') == [5]
    assert comprehensions_in("{x: f(x) for x in y}\nsorted(x for x in y)\n") == [1, 2]

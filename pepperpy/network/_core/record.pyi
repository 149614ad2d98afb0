from typing import TypeVar

_Record = TypeVar("_Record")

def copy_of(record: _Record) -> _Record:
    """A new object with the same values. They are shared: a list, say, is not to be changed in place.

    Raises:
        TypeError: Its class, or one of the bases, is written without `__slots__`.
    """

class Slot:
    """A slot that all objects of a class have, for compiled code.

    Raises:
        TypeError: The class has no such slot.
    """

    def __init__(self, kind: type, name: str) -> None: ...

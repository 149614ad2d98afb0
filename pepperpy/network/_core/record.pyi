from typing import TypeVar

Record = TypeVar("Record")

def copy_of(record: Record) -> Record:
    """A new object with the same values. They are shared: a list, say, is not to be changed in place.

    Raises:
        TypeError: Its class, or one of the bases, is written without `__slots__`, or has `__weakref__`.
    """

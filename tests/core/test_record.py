"""`copy_of()`: a copy of a record has its values and a life of its own; what has more than slots is refused.

What compiled code does with a `Slot` shows in `tests/tcp/test_link.py`.
"""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest

from pepperpy.network._core.record import Slot, copy_of


class Base:
    __slots__ = ("first", "unset")


class Record(Base):
    __slots__ = ("last",)

    def __init__(self, first: Any, last: Any) -> None:
        self.first = first
        self.last = last


class Value:
    pass


def test_a_copy_has_the_same_values_and_is_changed_alone() -> None:
    record = Record(1, [2])
    copy = copy_of(record)
    assert type(copy) is Record
    assert (copy.first, copy.last) == (1, [2])
    assert copy.last is record.last
    assert not hasattr(copy, "unset")
    copy.first = 3
    copy.unset = 4
    assert record.first == 1
    assert not hasattr(record, "unset")


def test_a_value_lives_as_long_as_a_record_that_has_it() -> None:
    value = Value()
    before = sys.getrefcount(value)
    record = Record(value, None)
    copies = [copy_of(record) for _ in range(3)]
    assert sys.getrefcount(value) == before + 4
    del record
    copies.clear()
    assert sys.getrefcount(value) == before


def test_a_copy_in_a_circle_is_collected() -> None:
    value = Value()
    copy = copy_of(Record(value, None))
    copy.last = copy
    gone = weakref.ref(value)
    del copy, value
    gc.collect()
    assert gone() is None


class WithWeakref(Record):
    __slots__ = ("__weakref__",)


def test_weak_references_lead_to_a_record_or_to_its_copy() -> None:
    record = WithWeakref(1, 2)
    to_record = weakref.ref(record)
    copy = copy_of(record)
    assert weakref.getweakrefcount(copy) == 0
    to_copy = weakref.ref(copy)
    del record
    assert to_record() is None and to_copy() is copy
    assert (copy.first, copy.last) == (1, 2)
    del copy
    assert to_copy() is None


class WithDict(Base):
    pass


class Number(int):
    __slots__ = ()


class Failure(Exception):
    __slots__ = ("more",)


@pytest.mark.parametrize("other", [WithDict(), Number(1), Failure(), 1, "text", [], Value()])
def test_what_has_more_than_slots_is_refused(other: object) -> None:
    with pytest.raises(TypeError, match=f"{type(other).__name__} must have __slots__"):
        copy_of(other)


@pytest.mark.parametrize("name", ["__init__", "__doc__", "__dict__"])
def test_an_attribute_of_a_class_that_is_no_slot_is_refused(name: str) -> None:
    Slot(Record, "first")
    with pytest.raises(TypeError, match=f"{name} is no slot of WithDict"):
        Slot(WithDict, name)

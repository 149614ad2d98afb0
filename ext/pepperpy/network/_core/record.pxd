cdef extern from "record.h":
    object copy_record(object record)
    object slot_value(object record, Py_ssize_t at)
    void set_slot(object record, Py_ssize_t at, object value) noexcept


cdef class Slot:
    cdef Py_ssize_t _at              # bytes from the start of an object

    # The object must be of that class: nobody looks.
    cdef inline object of(self, object record):
        return slot_value(record, self._at)

    cdef inline void put(self, object record, object value) noexcept:
        set_slot(record, self._at, value)

/* Copies records: objects that have slots and nothing else. */
#ifndef PEPPERPY_NETWORK_RECORD_H
#define PEPPERPY_NETWORK_RECORD_H

#include <Python.h>

/* Whether all that the object holds are the slots of its classes: pointers to objects, one after the other behind its
   head. Weak references to it may be among them. */
static inline int is_record(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);

    if (type->tp_dictoffset != 0 || type->tp_itemsize != 0)
        return 0;
    while (type->tp_flags & Py_TPFLAGS_HEAPTYPE)
        type = type->tp_base;
    return type == &PyBaseObject_Type;
}

/* A new object with the same values in its slots, to which no weak reference leads yet. */
static inline PyObject *copy_record(PyObject *record) {
    PyTypeObject *type = Py_TYPE(record);
    PyObject *copy = type->tp_alloc(type, 0);
    Py_ssize_t at;

    if (copy == NULL)
        return NULL;
    for (at = sizeof(PyObject); at < type->tp_basicsize; at += sizeof(PyObject *)) {
        PyObject *value = *(PyObject **)((char *)record + at);

        /* From CPython 3.12 on they lie before the object, and this is negative. */
        if (at == type->tp_weaklistoffset)
            continue;
        Py_XINCREF(value);
        *(PyObject **)((char *)copy + at) = value;
    }
    return copy;
}

#endif

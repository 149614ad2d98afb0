/* Copies records, objects that have slots and nothing else, and reads and writes their slots. */
#ifndef PEPPERPY_NETWORK_RECORD_H
#define PEPPERPY_NETWORK_RECORD_H

#include <Python.h>
#include <structmember.h>

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

/* Where the objects of a class have what this attribute of the class describes; -1: it describes no slot. */
static inline Py_ssize_t slot_offset(PyObject *attribute) {
    PyMemberDef *member;

    if (!Py_IS_TYPE(attribute, &PyMemberDescr_Type))
        return -1;
    member = ((PyMemberDescrObject *)attribute)->d_member;
    return member->type == T_OBJECT_EX ? member->offset : -1;
}

/* The value there, which must be set. */
static inline PyObject *slot_value(PyObject *record, Py_ssize_t at) {
    PyObject *value = *(PyObject **)((char *)record + at);

    Py_INCREF(value);
    return value;
}

static inline void set_slot(PyObject *record, Py_ssize_t at, PyObject *value) {
    Py_INCREF(value);
    Py_XSETREF(*(PyObject **)((char *)record + at), value);
}

#endif

/* What the core asks the interpreter about the code that runs now. No public function tells it, so the fields of the
   thread state are read. CPython's headers have them under these names since 3.7 (Include/cpython/pystate.h). */
#ifndef PEPPERPY_NETWORK_RUNNING_H
#define PEPPERPY_NETWORK_RUNNING_H

#include <Python.h>

/* A number that changes whenever this thread enters or leaves a context. A loop does that for each callback and for each
   step of a task. So if the number is the same, the thread is still in the same turn of the same loop. */
static inline unsigned long long context_switches(void) { return PyThreadState_Get()->context_ver; }

/* Leaves the current context of this thread, and returns a reference to it for return_to_context(). NULL: there is none,
   outside of any callback. */
static inline PyObject *leave_context(void) {
    PyObject *context = PyThreadState_Get()->context;

    if (context == NULL)
        return NULL;
    Py_INCREF(context);
    if (PyContext_Exit(context) < 0) {
        PyErr_Clear();
        Py_CLEAR(context);
    }
    return context;
}

static inline void return_to_context(PyObject *context) {
    if (context == NULL)
        return;
    if (PyContext_Enter(context) < 0)
        PyErr_Clear();
    Py_DECREF(context);
}

#endif

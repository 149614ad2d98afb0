/* What the C core asks the interpreter about the code that runs now. No public function answers it. The thread state's
   fields do, which are in CPython's headers under the same names from 3.7 on (Include/cpython/pystate.h). */
#ifndef PEPPERPY_NETWORK_RUNNING_H
#define PEPPERPY_NETWORK_RUNNING_H

#include <Python.h>

/* Another number each time this thread enters or leaves a context, as it does for each callback and each step of a task.
   So where the number is the same, no loop has come or gone. */
static inline unsigned long long context_switches(void) { return PyThreadState_Get()->context_ver; }

/* Leave the context that this thread is in, until return_to_context() with what this returns: a reference, or NULL where
   there is none to leave (outside of any callback). */
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

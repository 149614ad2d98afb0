/* What the core asks the interpreter about the code that runs now. No public function tells it, so the fields of the
   thread state are read. CPython's headers have them under these names since 3.7 (Include/cpython/pystate.h). */
#ifndef PEPPERPY_NETWORK_RUNNING_H
#define PEPPERPY_NETWORK_RUNNING_H

#include <Python.h>

/* A number that changes whenever this thread enters or leaves a context. A loop does that for each callback and for each
   step of a task. So if the number is the same, the thread is still in the same turn of the same loop. */
static inline unsigned long long context_switches(void) { return PyThreadState_Get()->context_ver; }

/* What asyncio._get_running_loop() returns: the loop that runs in this thread, or None. On CPython 3.11 that function asks
   the kernel each time which process this is (0.12 us, measured), because after a fork the loop of the parent does not run.
   Here the caller sees to it that none counts as running then, as CPython does itself since 3.12. */
static inline PyObject *running_loop_of(PyObject *get_running_loop, PyObject *key) {
#if PY_VERSION_HEX < 0x030c0000 && !defined(_WIN32)
    /* What that function reads: the object of Modules/_asynciomodule.c in the dict of the thread. */
    struct {
        PyObject_HEAD
        PyObject *loop;
    } *holder = NULL;
    PyObject *of_thread = PyThreadState_GetDict();

    if (of_thread != NULL)
        holder = (void *)PyDict_GetItemWithError(of_thread, key);
    if (holder != NULL) {
        Py_INCREF(holder->loop);
        return holder->loop;
    }
#endif
    return PyObject_CallNoArgs(get_running_loop);
}

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

from cpython.object cimport PyObject

cdef extern from *:
    """
    #include <time.h>

    static inline long long read_clock(clockid_t clock)
    {
        struct timespec now;
        clock_gettime(clock, &now);
        return now.tv_sec * 1000000000LL + now.tv_nsec;
    }

    /* The exception that is set, as one object, and back again: 3.12 has this under another name than 3.11. */
    static inline PyObject *take_error(void)
    {
    #if PY_VERSION_HEX >= 0x030C0000
        return PyErr_GetRaisedException();
    #else
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        if (traceback != NULL)
            PyException_SetTraceback(value, traceback);
        Py_XDECREF(type);
        Py_XDECREF(traceback);
        return value;
    #endif
    }
    """
    PyObject *take_error()
    ctypedef int clockid_t
    clockid_t CLOCK_MONOTONIC
    clockid_t CLOCK_REALTIME
    long long read_clock(clockid_t clock)

cdef extern from "Python.h":
    int PyContextVar_Get(object, PyObject *, PyObject **) except -1
    object PyContextVar_Set(object, object)
    int PyContextVar_Reset(object, object)
    void Py_DECREF(PyObject *)
    void Py_INCREF(PyObject *)
    object PyObject_CallOneArg(object, object)
    object PyObject_CallNoArgs(object)


cdef inline object value_of(object variable):
    """Return the value of a context variable; None for one without."""
    cdef PyObject *value = NULL
    PyContextVar_Get(variable, NULL, &value)
    if value == NULL:
        return None
    found = <object>value
    Py_DECREF(value)
    return found


cdef enum:
    NEW, RUNNING, DONE


cdef class Stepped:
    cdef object inner
    cdef int state

    cdef object begin(self)
    cdef int ended(self, object error) except -1

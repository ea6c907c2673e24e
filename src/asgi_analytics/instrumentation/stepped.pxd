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
    """
    ctypedef int clockid_t
    clockid_t CLOCK_MONOTONIC
    clockid_t CLOCK_REALTIME
    long long read_clock(clockid_t clock)

cdef extern from "Python.h":
    int PyContextVar_Get(object, PyObject *, PyObject **) except -1
    object PyContextVar_Set(object, object)
    int PyContextVar_Reset(object, object)
    void Py_DECREF(PyObject *)
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

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

    /* What a context variable holds, None for nothing; without a reference, for the context has one. */
    static inline PyObject *held_by(PyObject *variable)
    {
        PyObject *value;
        if (PyContextVar_Get(variable, NULL, &value) < 0)
            PyErr_Clear();
        else if (value != NULL) {
            Py_DECREF(value);
            return value;
        }
        return Py_None;
    }

    /* Objects of one class that have done their work, to be used again: Cython's own way is for base classes only. */
    typedef struct {
        int count;
        PyObject *kept[16];
        destructor destroy;
    } Spares;

    static inline PyObject *spare_of(Spares *spares)
    {
        PyObject *object;
        if (spares->count == 0)
            return NULL;
        object = spares->kept[--spares->count];
        PyObject_Init(object, Py_TYPE(object));
        PyObject_GC_Track(object);
        return object;
    }

    /* Called in place of tp_dealloc with an object that refers to nothing any more. */
    static inline void keep_spare(Spares *spares, PyObject *object)
    {
        if (spares->count == 16 || PyObject_GC_IsFinalized(object)) {
            spares->destroy(object);
            return;
        }
        PyObject_GC_UnTrack(object);
        spares->kept[spares->count++] = object;
    }

    static void set_destructor(PyObject *type, Spares *spares, destructor destroy)
    {
        spares->destroy = ((PyTypeObject *)type)->tp_dealloc;
        ((PyTypeObject *)type)->tp_dealloc = destroy;
    }
    """
    PyObject *held_by(object)
    ctypedef void (*destructor)(PyObject *) noexcept
    ctypedef struct Spares:
        destructor destroy
    PyObject *spare_of(Spares *)
    void keep_spare(Spares *, PyObject *)
    void set_destructor(object, Spares *, destructor)
    PyObject *take_error()
    ctypedef int clockid_t
    clockid_t CLOCK_MONOTONIC
    clockid_t CLOCK_REALTIME
    long long read_clock(clockid_t clock)

cdef extern from "Python.h":
    object PyContextVar_Set(object, object)
    int PyContextVar_Reset(object, object)
    void Py_DECREF(PyObject *)
    void Py_INCREF(PyObject *)
    object PyObject_CallOneArg(object, object)
    object PyObject_CallNoArgs(object)


cdef inline object value_of(object variable):
    """Return the value of a context variable; None for one without."""
    return <object>held_by(variable)


cdef inline object taken_error():
    """Return the exception that is set, and unset it."""
    cdef PyObject *taken = take_error()
    error = <object>taken
    Py_DECREF(taken)
    return error


cdef enum:
    NEW, RUNNING, DONE


cdef class Stepped:
    cdef object inner
    cdef int state

    cdef object begin(self)
    cdef int ended(self, object error, object result) except -1


cdef void forget() noexcept

from cpython.object cimport PyObject

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT

cdef extern from "stepped.h":
    void give_error(object)
    void give_result(PyObject *)
    void forget()
    object awaiter_of(object)
    PySendResult send_to(PyObject *, PyObject *, PyObject **)
    ctypedef PySendResult (*sendfunc)(PyObject *, PyObject *, PyObject **)
    ctypedef PyObject *(*iternextfunc)(PyObject *)
    void set_steps(object, sendfunc, iternextfunc)
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
    bint PyErr_GivenExceptionMatches(object, object)
    PyObject *Py_None
    object PyContextVar_Set(object, object)
    int PyContextVar_Reset(object, object)
    int PyObject_CallFinalizerFromDealloc(PyObject *)
    void Py_DECREF(PyObject *)
    void Py_INCREF(PyObject *)
    object PyObject_CallOneArg(object, object)


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


cdef inline Stepped used_again(PyObject *spare):
    """Return what `spare_of` gave, to begin anew."""
    one = <Stepped>spare
    Py_DECREF(spare)
    one.state = NEW
    return one


cdef inline int end(Stepped self, object error, object result) except -1:
    self.state = DONE
    self.inner = None  # a task may outlive what it awaited, and keeps this
    return self.ended(error, result)


cdef inline PySendResult step(PyObject *me, PyObject *value, PyObject **result) except PYGEN_ERROR:
    cdef Stepped self = <Stepped>me
    cdef int how
    result[0] = NULL
    if self.state != RUNNING:
        if self.state == DONE:
            raise RuntimeError("cannot reuse already awaited coroutine")
        self.state = RUNNING
        try:
            self.inner = awaiter_of(self.begin())
        except BaseException as error:
            end(self, error, None)
            raise
    how = send_to(<PyObject *>self.inner, value, result)
    if how == PYGEN_NEXT:
        return PYGEN_NEXT
    if how == PYGEN_RETURN:
        found = <object>result[0]  # counted here, and once more until it is handed on
        Py_DECREF(result[0])
        result[0] = NULL
        end(self, None, found)
        Py_INCREF(<PyObject *>found)
        result[0] = <PyObject *>found
        return PYGEN_RETURN
    # Not by try and except, which would add a line of ours to the traceback.
    error = taken_error()
    end(self, error, None)
    give_error(error)
    return PYGEN_ERROR


ctypedef PySendResult (*sendfunc_as_it_is)(PyObject *, PyObject *, PyObject **) noexcept


cdef inline PyObject *step_on(PyObject *me) except? NULL:
    cdef PyObject *result = NULL
    # Called as if it could not raise: else each exception would get a line of ours in its traceback.
    cdef PySendResult how = (<sendfunc_as_it_is>step)(me, Py_None, &result)
    if how == PYGEN_RETURN:
        give_result(result)
        Py_DECREF(result)
        return NULL
    return result

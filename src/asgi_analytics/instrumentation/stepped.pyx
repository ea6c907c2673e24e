# cython: binding=False
"""What stands in for a coroutine that does something, awaits something else, and does something more at its end.

A coroutine of Python's own costs its frame; this is an object with three C functions, which the interpreter and
asyncio's tasks call without look-ups. To whoever awaits it, it is a `collections.abc.Coroutine` that returns None.
"""

from cpython.object cimport PyObject

cdef extern from *:
    """
    static void give_error(PyObject *value)
    {
    #if PY_VERSION_HEX >= 0x030C0000
        PyErr_SetRaisedException(Py_NewRef(value));
    #else
        PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(value)), Py_NewRef(value), PyException_GetTraceback(value));
    #endif
    }

    /* What an await of an object asks, step by step: a coroutine itself, or what its __await__ gives. */
    static PyObject *awaiter_of(PyObject *awaitable)
    {
        PyAsyncMethods *methods = Py_TYPE(awaitable)->tp_as_async;
        if (PyCoro_CheckExact(awaitable))
            return Py_NewRef(awaitable);
        if (methods != NULL && methods->am_await != NULL)
            return methods->am_await(awaitable);
        if (PyGen_CheckExact(awaitable)) {
            PyCodeObject *code = (PyCodeObject *)PyObject_GetAttrString(awaitable, "gi_code");
            int of_types_coroutine = code != NULL && (code->co_flags & CO_ITERABLE_COROUTINE);
            if (code == NULL)
                return NULL;
            Py_DECREF(code);
            if (of_types_coroutine)
                return Py_NewRef(awaitable);
        }
        PyErr_Format(PyExc_TypeError, "object %.100s can't be used in 'await' expression", Py_TYPE(awaitable)->tp_name);
        return NULL;
    }

    /* What the interpreter calls at an await, and what asyncio's tasks call: Cython has neither for a class. */
    static void set_steps(PyObject *type, sendfunc step, iternextfunc next)
    {
        ((PyTypeObject *)type)->tp_as_async->am_send = step;
        ((PyTypeObject *)type)->tp_iternext = next;
    }
    """
    void give_error(object)
    object awaiter_of(object)
    ctypedef PySendResult (*sendfunc)(PyObject *, PyObject *, PyObject **)
    ctypedef PyObject *(*iternextfunc)(PyObject *)
    void set_steps(object, sendfunc, iternextfunc)

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    int PyIter_Send(PyObject *, PyObject *, PyObject **)
    bint PyErr_GivenExceptionMatches(object, object)
    PyObject *Py_None


cdef class Stepped:
    """An awaitable around another one. What derives from it says what comes before and after."""

    cdef object begin(self):
        """Do what comes before, and return what is to be awaited."""
        raise NotImplementedError  # a request and a message each have their own

    cdef int ended(self, object error) except -1:
        """Do what comes after: an exception, which goes on, or None."""
        raise NotImplementedError  # a request and a message each have their own

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Go on with a value, as a coroutine does."""
        cdef PyObject *result = NULL
        cdef PySendResult how = step(<PyObject *>self, <PyObject *>value, &result)
        found = <object>result
        Py_DECREF(result)
        if how == PYGEN_RETURN:
            raise StopIteration(found)
        return found

    def throw(self, kind, value=None, traceback=None):
        """Go on with an exception, as a coroutine does."""
        if self.state != RUNNING:
            self.state = DONE
            raise (kind if value is None else value)
        try:
            if PyErr_GivenExceptionMatches(kind, GeneratorExit):
                if (close := getattr(self.inner, "close", None)) is not None:
                    close()
            elif (throw := getattr(self.inner, "throw", None)) is not None:
                return throw(kind) if value is None and traceback is None else throw(kind, value, traceback)
            raise (kind if value is None else value)
        except StopIteration:
            self.state = DONE
            self.ended(None)
            raise StopIteration from None
        except BaseException as error:
            self.state = DONE
            self.ended(error)
            raise

    def close(self):
        """End early, as a coroutine does."""
        if self.state != RUNNING:
            self.state = DONE
            return
        try:
            self.throw(GeneratorExit)
        except (GeneratorExit, StopIteration):
            return
        raise RuntimeError("coroutine ignored GeneratorExit")


cdef PySendResult step(PyObject *me, PyObject *value, PyObject **result) except PYGEN_ERROR:
    cdef Stepped self = <Stepped>me
    cdef int how
    cdef PyObject *taken
    result[0] = NULL
    if self.state != RUNNING:
        if self.state == DONE:
            raise RuntimeError("cannot reuse already awaited coroutine")
        self.state = RUNNING
        try:
            self.inner = awaiter_of(self.begin())
        except BaseException as error:
            self.state = DONE
            self.ended(error)
            raise
    how = PyIter_Send(<PyObject *>self.inner, value, result)
    if how == PYGEN_NEXT:
        return PYGEN_NEXT
    self.state = DONE
    if how == PYGEN_RETURN:
        Py_DECREF(result[0])
        result[0] = NULL
        self.ended(None)
        Py_INCREF(Py_None)
        result[0] = Py_None
        return PYGEN_RETURN
    # Not by try and except, which would add a line of ours to the traceback.
    taken = take_error()
    error = <object>taken
    Py_DECREF(taken)
    self.ended(error)
    give_error(error)
    return PYGEN_ERROR


ctypedef PySendResult (*sendfunc_as_it_is)(PyObject *, PyObject *, PyObject **) noexcept


cdef PyObject *step_on(PyObject *me) except? NULL:
    cdef PyObject *result = NULL
    # Called as if it could not raise: else each exception would get a line of ours in its traceback.
    cdef PySendResult how = (<sendfunc_as_it_is>step)(me, Py_None, &result)
    if how != PYGEN_RETURN:
        return result
    Py_DECREF(result)  # None, as the end without an exception says too
    return NULL


set_steps(Stepped, <sendfunc>step, <iternextfunc>step_on)

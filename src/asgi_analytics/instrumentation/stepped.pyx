# cython: binding=False
"""What stands in for a coroutine that does something, awaits something else, and does something more at its end.

A coroutine of Python's own costs its frame; this is an object with three C functions, which the interpreter and
asyncio's tasks call without look-ups. To whoever awaits it, it is a `collections.abc.Coroutine`.
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

    /* What says to the interpreter that an await has ended, and with what. Nothing at all says None. To make the
       exception costs as much as all else here, so there is one, as long as nobody else has got hold of it. */
    static PyObject *spare_stop = NULL;

    static void give_result(PyObject *result)
    {
        PyStopIterationObject *stop = (PyStopIterationObject *)spare_stop;
        if (result == Py_None)
            return;
        if (stop != NULL && (Py_REFCNT(stop) != 1 || stop->traceback != NULL || stop->context != NULL))
            Py_CLEAR(spare_stop);
        if (spare_stop == NULL && (spare_stop = PyObject_CallNoArgs(PyExc_StopIteration)) == NULL)
            return;
        stop = (PyStopIterationObject *)spare_stop;
        Py_XSETREF(stop->value, Py_NewRef(result));
        give_error(spare_stop);
    }

    static void forget_result(void)
    {
        if (spare_stop != NULL && Py_REFCNT(spare_stop) == 1)
            Py_XSETREF(((PyStopIterationObject *)spare_stop)->value, Py_NewRef(Py_None));
    }

    /* What the interpreter calls at an await, and what asyncio's tasks call: Cython has neither for a class. */
    static void set_steps(PyObject *type, sendfunc step, iternextfunc next)
    {
        ((PyTypeObject *)type)->tp_as_async->am_send = step;
        ((PyTypeObject *)type)->tp_iternext = next;
    }
    """
    void give_error(object)
    void give_result(PyObject *)
    void forget_result()
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


cdef frozenset LIKE_A_COROUTINE = frozenset(
    ("cr_await", "cr_code", "cr_frame", "cr_origin", "cr_running", "cr_suspended", "__name__", "__qualname__")
)


cdef class Stepped:
    """An awaitable around another one, which returns what that does. What derives from it says what comes before and after.

    What is known of a coroutine's frames is asked of the inner one (``cr_frame``, ``cr_await``).
    """

    cdef object begin(self):
        """Do what comes before, and return what is to be awaited."""
        raise NotImplementedError  # a request and a message each have their own

    cdef int ended(self, object error, object result) except -1:
        """Do what comes after: an exception, which goes on, or None and the result."""
        raise NotImplementedError  # a request and a message each have their own

    def __getattr__(self, name):
        if name in LIKE_A_COROUTINE and self.inner is not None:
            return getattr(self.inner, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

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
            self.close()
            raise (kind if value is None else value)
        try:
            if PyErr_GivenExceptionMatches(kind, GeneratorExit):
                if (close := getattr(self.inner, "close", None)) is not None:
                    close()
            elif (throw := getattr(self.inner, "throw", None)) is not None:
                return throw(kind) if value is None and traceback is None else throw(kind, value, traceback)
            raise (kind if value is None else value)
        except StopIteration as stop:
            result = stop.value
            end(self, None, result)
            raise StopIteration(result) from None
        except BaseException as error:
            end(self, error, None)
            raise

    def close(self):
        """End early, as a coroutine does."""
        if self.state != RUNNING:
            if self.state == NEW and (close := getattr(self.inner, "close", None)) is not None:
                close()
            self.state = DONE
            self.inner = None
            return
        try:
            self.throw(GeneratorExit)
        except (GeneratorExit, StopIteration):
            return
        raise RuntimeError("coroutine ignored GeneratorExit")


cdef inline int end(Stepped self, object error, object result) except -1:
    self.state = DONE
    self.inner = None  # a task may outlive what it awaited, and keeps this
    return self.ended(error, result)


cdef PySendResult step(PyObject *me, PyObject *value, PyObject **result) except PYGEN_ERROR:
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
    how = PyIter_Send(<PyObject *>self.inner, value, result)
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


cdef PyObject *step_on(PyObject *me) except? NULL:
    cdef PyObject *result = NULL
    # Called as if it could not raise: else each exception would get a line of ours in its traceback.
    cdef PySendResult how = (<sendfunc_as_it_is>step)(me, Py_None, &result)
    if how == PYGEN_RETURN:
        give_result(result)
        Py_DECREF(result)
        return NULL
    return result


cdef void forget() noexcept:
    """Let go of the last result, which whoever awaited it has taken."""
    forget_result()


set_steps(Stepped, <sendfunc>step, <iternextfunc>step_on)

# cython: binding=False
"""What stands in for a coroutine that does something, awaits something else, and does something more at its end.

A coroutine of Python's own costs its frame; this is an object with three C functions, which the interpreter and
asyncio's tasks call without look-ups. To whoever awaits it, it is a `collections.abc.Coroutine`.
"""

from cpython.object cimport PyObject

cdef frozenset LIKE_A_COROUTINE = frozenset(
    ("cr_await", "cr_code", "cr_frame", "cr_origin", "cr_running", "cr_suspended", "__name__", "__qualname__")
)


cdef class Stepped:
    """An awaitable around another one, which returns what that does. What derives from it says what comes before and after.

    What is known of a coroutine's frames is asked of the inner one (``cr_frame``, ``cr_await``).
    """

    cdef object begin(self):
        """Do what comes before, and return what is to be awaited."""
        raise NotImplementedError  # a request, a message and a query each have their own

    cdef int ended(self, object error, object result) except -1:
        """Do what comes after: an exception, which goes on, or None and the result."""
        raise NotImplementedError  # a request, a message and a query each have their own

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


set_steps(Stepped, <sendfunc>step, <iternextfunc>step_on)

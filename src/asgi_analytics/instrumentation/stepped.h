/* What Cython has no words for: parts of an await, and of Python's own objects. Inline, so that each compiled module has
   its own: on the way of a request or a query, each page and each line of code elsewhere is a cold one. */

#ifndef ASGI_ANALYTICS_STEPPED_H
#define ASGI_ANALYTICS_STEPPED_H

#include <Python.h>
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

static inline void give_error(PyObject *value)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(Py_NewRef(value));
#else
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(value)), Py_NewRef(value), PyException_GetTraceback(value));
#endif
}

/* What an await of an object asks, step by step: a coroutine itself, or what its __await__ gives. */
static inline PyObject *awaiter_of(PyObject *awaitable)
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

/* Goes on with what `awaiter_of` gave, as PyIter_Send does. */
static inline PySendResult send_to(PyObject *awaiter, PyObject *value, PyObject **result)
{
    PyAsyncMethods *methods = Py_TYPE(awaiter)->tp_as_async;
    if (methods != NULL && methods->am_send != NULL)
        return methods->am_send(awaiter, value, result);
    return PyIter_Send(awaiter, value, result);
}

/* What says to the interpreter that an await has ended, and with what. Nothing at all says None. To make the
   exception costs as much as all else here, so there is one, as long as nobody else has got hold of it. */
static PyObject *spare_stop = NULL;

static inline void give_result(PyObject *result)
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

static inline void forget(void)
{
    if (spare_stop != NULL && Py_REFCNT(spare_stop) == 1)
        Py_XSETREF(((PyStopIterationObject *)spare_stop)->value, Py_NewRef(Py_None));
}

/* What the interpreter calls at an await, and what asyncio's tasks call: Cython has neither for a class. A derived class
   shares the latter with its base, for which it is the same; the former is its own module's. */
static inline void set_steps(PyObject *type, sendfunc step, iternextfunc next)
{
    ((PyTypeObject *)type)->tp_as_async->am_send = step;
    ((PyTypeObject *)type)->tp_iternext = next;
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

static inline void set_destructor(PyObject *type, Spares *spares, destructor destroy)
{
    spares->destroy = ((PyTypeObject *)type)->tp_dealloc;
    ((PyTypeObject *)type)->tp_dealloc = destroy;
}

#endif

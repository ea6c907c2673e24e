from cpython.dict cimport PyDict_Size
from cpython.object cimport PyObject

from asgi_analytics._counter cimport Counter
from asgi_analytics._fields cimport QueueFields
from asgi_analytics.instrumentation.stepped cimport CLOCK_REALTIME, read_clock, value_of

cdef extern from *:
    """
    /* What deque.append calls: a look-up and two calls less. */
    static PyCFunction append_to_deque;
    static PyTypeObject *deque_type;

    static void learn_to_append(PyObject *descriptor)
    {
        PyMethodDef *method;
        if (!Py_IS_TYPE(descriptor, &PyMethodDescr_Type))
            return;
        method = ((PyMethodDescrObject *)descriptor)->d_method;
        if (method->ml_flags != METH_O)
            return;
        append_to_deque = method->ml_meth;
        deque_type = PyDescr_TYPE(descriptor);
    }

    static inline PyObject *append(PyObject *items, PyObject *item)
    {
        if (!Py_IS_TYPE(items, deque_type))
            return PyObject_CallMethod(items, "append", "O", item);
        return append_to_deque(items, item);
    }
    """
    object append(object, object)
    void learn_to_append(object)

cdef extern from "Python.h":
    PyObject *PyList_GET_ITEM(list, Py_ssize_t)


cdef class Writer:
    # For the application's threads: what an id is minted of, as long as nobody else has begun a millisecond.
    cdef long long next_millisecond
    cdef object id_base
    cdef list bases
    cdef Counter counter
    # For the worker.
    cdef object lines
    cdef object service
    cdef object nobody
    cdef object place
    # What is the same for a millisecond.
    cdef long long millisecond
    cdef object base
    cdef object id_start
    cdef object time_start
    cdef bint busy
    cdef char *buffer
    cdef Py_ssize_t length
    cdef Py_ssize_t room

    cdef int look_again(self, long long now) except -1
    cdef int text(self, str text, Py_ssize_t first=*, Py_ssize_t last=*) except -1
    cdef int grow(self, Py_ssize_t size) except -1
    cdef int start(self, Record record) except -1
    cdef str who(self, user_id, session_id)
    cdef bytes ended(self, str key, Py_ssize_t first=*)
    cdef bytes write(self, Record record)


cdef class Record:
    cdef Writer writer
    cdef long long weight
    cdef readonly long long time_ns
    cdef long long number
    cdef object base
    cdef object user_id
    cdef object session_id
    cdef object trace_id
    cdef object span_id
    cdef object request_id
    cdef object endpoint
    cdef long long duration


cdef class RequestRecord(Record):
    cdef object status
    cdef object method
    cdef object outcome
    cdef long long ttfb
    cdef long long size


cdef class QueryRecord(Record):
    cdef object data
    cdef long long rows


cdef class RequestWriter(Writer):
    cdef dict heads
    cdef list near

    cdef str head_of(self, RequestRecord record)


cdef class QueryWriter(Writer):
    pass


cdef object current_trace()
cdef object span_in(object trace)


cdef inline object trace_in(object variable):
    """Return OpenTelemetry's context, which ``otel_variable`` keeps; None where it is empty."""
    trace = current_trace() if variable is None else value_of(variable)
    if isinstance(trace, dict) and PyDict_Size(trace) == 0:
        return None
    return trace


cdef inline int mint(Record record) except -1:
    """Give a record its time and its id, of the counter that all share."""
    cdef Writer writer = record.writer
    cdef long long now = read_clock(CLOCK_REALTIME)
    if now >= writer.next_millisecond or PyList_GET_ITEM(writer.bases, 0) != <PyObject *>writer.id_base:
        writer.look_again(now)
    record.time_ns = now
    record.base = writer.id_base
    record.number = writer.counter.number
    writer.counter.number += 1
    return 0


cdef inline bint enqueue(QueueFields queue, Record record) except -1:
    """Put a record into the queue, as `EventQueue.put` does; False when it is full."""
    items = queue.items
    if len(items) < queue.calm_length and queue.bytes_in - queue.bytes_out + record.weight < queue.calm_bytes:
        queue.bytes_in += record.weight
        append(items, record)
        return True
    return queue.put(record, record.weight, True)

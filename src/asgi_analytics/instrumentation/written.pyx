# cython: boundscheck=False, wraparound=False
"""The lines of records, compiled: the bytes that `RequestLines.line` and `QueryLines.line` make, piece by piece.

The worker shares the interpreter with the application, which waits while a line is made. A build without a compiler
leaves this file out; tests compare the two, and both with what the encoder makes of the event.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItemWithError, PyDict_Size
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from libc.string cimport memcpy

from asgi_analytics.events.minting cimport advance

from contextvars import ContextVar
from uuid import UUID

import opentelemetry.trace.propagation
from opentelemetry.trace import SpanContext

from asgi_analytics._context import otel_context, span_of
from asgi_analytics.events.minting import base, next_millisecond, step
from asgi_analytics.instrumentation.identity import request_ids
from asgi_analytics.instrumentation.lines import endpoint_json, json_text, user_json

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL

cdef enum:
    BETWEEN = 1024  # more than is written from one text to the next
    NEAR = 64  # heads at hand

otel_variable = getattr(otel_context, "__self__", None)
"""The context variable of OpenTelemetry's context; None where that is not kept in one."""
if not isinstance(otel_variable, ContextVar):
    otel_variable = None
cdef object SPAN_KEY = getattr(opentelemetry.trace.propagation, "_SPAN_KEY", None)
cdef object SPAN_CONTEXT = SpanContext
cdef list REQUEST_IDS = request_ids


cdef extern from *:
    """
    /* The two digits of each byte: half of the steps that one digit at a time would take. */
    #define ROW(d) d"0" d"1" d"2" d"3" d"4" d"5" d"6" d"7" d"8" d"9" d"a" d"b" d"c" d"d" d"e" d"f"
    static const char HEX[] = ROW("0") ROW("1") ROW("2") ROW("3") ROW("4") ROW("5") ROW("6") ROW("7")
        ROW("8") ROW("9") ROW("a") ROW("b") ROW("c") ROW("d") ROW("e") ROW("f");

    /* A number of up to 128 bits, as an id has them, in two halves: shifts and masks would make four numbers more. */
    static int halves_of(PyObject *number, unsigned long long *upper, unsigned long long *lower)
    {
        unsigned char bytes[16];
        int at;
        if (!PyLong_Check(number)) {
            PyErr_SetString(PyExc_TypeError, "an id is an int");
            return -1;
        }
    #if PY_VERSION_HEX >= 0x030D0000
        if (_PyLong_AsByteArray((PyLongObject *)number, bytes, 16, 0, 0, 1) < 0)
            return -1;
    #else
        if (_PyLong_AsByteArray((PyLongObject *)number, bytes, 16, 0, 0) < 0)
            return -1;
    #endif
        *upper = *lower = 0;
        for (at = 0; at < 8; at++) {
            *upper = *upper << 8 | bytes[at];
            *lower = *lower << 8 | bytes[at + 8];
        }
        return 0;
    }
    """
    const char *HEX
    int halves_of(object number, unsigned long long *upper, unsigned long long *lower) except -1


cdef inline void raw(Writer self, const char *ascii, Py_ssize_t size) noexcept:
    memcpy(&self.buffer[self.length], ascii, size)
    self.length += size


cdef inline void write_number(Writer self, long long number) noexcept:
    cdef char digits[24]
    cdef int at = 24
    cdef unsigned long long rest = <unsigned long long>(-number if number < 0 else number)
    while True:
        at -= 1
        digits[at] = 48 + rest % 10
        rest //= 10
        if rest == 0:
            break
    if number < 0:
        at -= 1
        digits[at] = 45
    raw(self, &digits[at], 24 - at)


cdef inline void write_hexadecimal(Writer self, unsigned long long number, int digits) noexcept:
    """Append the last so many digits, an even number of them."""
    cdef int at = digits
    cdef char *place = &self.buffer[self.length]
    while at > 0:
        at -= 2
        memcpy(&place[at], &HEX[2 * (number & 255)], 2)
        number >>= 8
    self.length += digits


cdef int write_uuid(Writer self, number) except -1:
    cdef unsigned long long upper, lower
    halves_of(number, &upper, &lower)
    write_hexadecimal(self, upper >> 32, 8)
    raw(self, b"-", 1)
    write_hexadecimal(self, upper >> 16, 4)
    raw(self, b"-", 1)
    write_hexadecimal(self, upper, 4)
    raw(self, b"-", 1)
    write_hexadecimal(self, lower >> 48, 4)
    raw(self, b"-", 1)
    write_hexadecimal(self, lower, 12)
    return 0


cdef int write_trace(Writer self, trace_id, span_id) except -1:
    cdef unsigned long long upper, lower
    halves_of(trace_id, &upper, &lower)
    raw(self, b'"trace_id":"', 12)
    write_hexadecimal(self, upper, 16)
    write_hexadecimal(self, lower, 16)
    raw(self, b'","span_id":"', 13)
    halves_of(span_id, &upper, &lower)
    write_hexadecimal(self, lower, 16)
    raw(self, b'"', 1)
    return 0


cdef class Writer:
    """The buffer in which a line grows, and what is the same for all lines of a service and an event type."""

    def __cinit__(self, lines):
        self.room = 4096
        self.buffer = <char *>PyMem_Malloc(self.room)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.buffer)

    def __init__(self, lines):
        self.lines = lines
        self.bases = base
        self.service, self.nobody, self.place = lines.service, lines.nobody, lines.place
        self.millisecond = -1

    cdef int look_again(self, long long now) except -1:
        """Take note of the millisecond's base and of the counter, after another thread, a fork, or a millisecond."""
        if now >= <long long>next_millisecond[0]:
            advance(now)
        self.next_millisecond, self.id_base = next_millisecond[0], base[0]
        self.counter = step[0].__self__
        return 0

    cdef int text(self, str text, Py_ssize_t first=0, Py_ssize_t last=0) except -1:
        """Append a text without so many of its first and last characters, which are ASCII."""
        cdef Py_ssize_t size = 0
        cdef const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size)
        size -= first + last
        if self.length + size + BETWEEN > self.room:
            self.grow(self.length + size + BETWEEN)
        memcpy(&self.buffer[self.length], utf8 + first, size)
        self.length += size
        return 0

    cdef int grow(self, Py_ssize_t size) except -1:
        cdef char *buffer = <char *>PyMem_Realloc(self.buffer, 2 * size)
        if buffer == NULL:
            raise MemoryError
        self.buffer, self.room = buffer, 2 * size
        return 0

    cdef int start(self, Record record) except -1:
        """Begin a line with its id, its type and its time."""
        cdef int micros = (record.time_ns // 1000) % 1000
        cdef long long millisecond = record.time_ns // 1000000
        self.length = 0
        if millisecond != self.millisecond or record.base is not self.base:
            self.id_start, self.time_start = self.lines.starts(millisecond, record.base)
            self.millisecond = millisecond
            self.base = record.base
        self.text(self.id_start)
        write_hexadecimal(self, <unsigned long long>record.number, 12)
        self.text(self.time_start)
        self.buffer[self.length] = 48 + micros // 100
        self.buffer[self.length + 1] = 48 + micros // 10 % 10
        self.buffer[self.length + 2] = 48 + micros % 10
        self.length += 3
        return 0

    cdef str who(self, user_id, session_id):
        """Append whose event it is; returns what the context ends with beside the place."""
        if user_id is None and session_id is None:
            self.text(self.nobody)
            return ""
        self.text(self.service)
        key = ""
        if user_id is None:
            raw(self, b"null", 4)
        elif type(user_id) is UUID:
            raw(self, b'"', 1)
            write_uuid(self, user_id.int)
            raw(self, b'"', 1)
        else:
            user, key = user_json(user_id)
            self.text(user)
        raw(self, b',"session_id":', 14)
        if session_id is None:
            raw(self, b"null", 4)
        else:
            self.text(json_text(session_id))
        raw(self, b",", 1)
        return key

    cdef bytes ended(self, str key, Py_ssize_t first=0):
        """End a line with the place, without so many of its first characters, and return it."""
        if key:
            self.text(self.place, first, 2)
            self.text(key)
            raw(self, b"}}", 2)
        else:
            self.text(self.place, first)
        return PyBytes_FromStringAndSize(self.buffer, self.length)

    cdef bytes write(self, Record record):
        raise NotImplementedError  # each type of event has lines of its own


@cython.no_gc
cdef class Record:
    """What differs from one event to the next, as the tuples of `lines` have it, in less than half of their memory.

    ``len()`` is what it counts for in the queue.
    """

    def __len__(self):
        return self.weight

    def line(self):
        """Return the event's JSON."""
        cdef Writer writer = self.writer
        if writer.busy:  # another thread, or what a signal has interrupted, is in the middle of a line
            writer = type(writer)(writer.lines)
        writer.busy = True
        try:
            return writer.write(self)
        finally:
            writer.busy = False


@cython.final
@cython.no_gc
cdef class RequestRecord(Record):
    """The record of a request; durations in microseconds, -1 where there is no first byte, or no size."""


@cython.final
@cython.no_gc
cdef class QueryRecord(Record):
    """The record of a query that went well; -1 rows where they are not known."""


@cython.final
cdef class RequestWriter(Writer):
    """Writes what `RequestLines.line` does."""

    def __init__(self, lines):
        Writer.__init__(self, lines)
        self.heads = lines.heads
        self.near = [None] * NEAR

    cdef str head_of(self, RequestRecord record):
        """Return what stands between the user and the duration; of most requests, without making a key for it."""
        cdef size_t place = (
            (<size_t><PyObject *>record.endpoint >> 5) ^ (<size_t><PyObject *>record.status >> 4)
            ^ (<size_t><PyObject *>record.method >> 3)
        ) % NEAR
        known = self.near[place]
        if (
            known is not None and (<tuple>known)[0] is record.endpoint and (<tuple>known)[1] is record.status
            and (<tuple>known)[2] is record.method and (<tuple>known)[3] is record.outcome
        ):
            return <str>(<tuple>known)[4]
        key = (record.endpoint, record.status, record.method, record.outcome)
        head = self.heads.get(key)
        if head is None:
            head = self.lines.head(*key)
        self.near[place] = (*key, head)  # holds them, so that no others can have their places in memory
        return <str>head

    cdef bytes write(self, Record one):
        cdef RequestRecord record = <RequestRecord>one
        cdef str head = self.head_of(record)
        self.start(record)
        key = self.who(record.user_id, record.session_id)
        self.text(head)
        write_number(self, record.duration)
        raw(self, b"e-3", 3)
        if record.ttfb >= 0:
            raw(self, b',"ttfb_ms":', 11)
            write_number(self, record.ttfb)
            raw(self, b"e-3", 3)
        if record.size >= 0:
            raw(self, b',"response_bytes":', 18)
            write_number(self, record.size)
        raw(self, b'},"context":{', 13)
        if record.trace_id is None:
            raw(self, b'"trace_id":null,"span_id":null', 30)
        else:
            write_trace(self, record.trace_id, record.span_id)
        raw(self, b',"request_id":"', 15)
        request_id = record.request_id
        if request_id is None:
            self.text(REQUEST_IDS[0])
            write_hexadecimal(self, <unsigned long long>record.number, 12)
        elif request_id.isalnum():
            self.text(request_id)
        else:
            self.text(json_text(request_id), 1, 1)
        return self.ended(key)


@cython.final
cdef class QueryWriter(Writer):
    """Writes what `QueryLines.line` does."""

    cdef bytes write(self, Record one):
        cdef QueryRecord record = <QueryRecord>one
        self.start(record)
        key = self.who(record.user_id, record.session_id)
        raw(self, b'"data":{', 8)
        self.text(record.data)
        raw(self, b',"duration_ms":', 15)
        write_number(self, record.duration)
        raw(self, b"e-3", 3)
        if record.rows >= 0:
            raw(self, b',"rows_affected":', 17)
            write_number(self, record.rows)
        if record.endpoint is not None:
            raw(self, b',"endpoint":', 12)
            self.text(endpoint_json(record.endpoint))
        raw(self, b',"outcome":"ok"},"context":{', 28)
        if record.trace_id is None:
            raw(self, b'"trace_id":null,"span_id":null', 30)
        else:
            write_trace(self, record.trace_id, record.span_id)
        request_id = record.request_id
        if request_id is None:
            raw(self, b',"request_id":null', 18)
            return self.ended(key, 1)
        raw(self, b',"request_id":"', 15)
        if request_id.isalnum():
            self.text(request_id)
        else:
            self.text(json_text(request_id), 1, 1)
        return self.ended(key)


cdef object current_trace():
    """Return OpenTelemetry's context where no variable keeps it."""
    return otel_context()


cdef object span_in(object trace):
    """Return which span is current in a context, as `span_of` does."""
    cdef PyObject *span
    cdef tuple ids
    if isinstance(trace, dict):
        span = PyDict_GetItemWithError(trace, SPAN_KEY)
        if span != NULL:
            context = (<object>span).get_span_context()
            if type(context) is SPAN_CONTEXT:
                ids = <tuple>context
                return (ids[0], ids[1]) if ids[5] else None
    return span_of(trace)

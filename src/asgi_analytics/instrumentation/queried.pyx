# cython: binding=False
"""The way of an ordinary query through asyncpg, compiled: what `asyncpg.Watcher` and `QueryRecorder` do for most queries.

It does nothing that they do not do, and hands over to them as soon as anything is out of the ordinary. A build without
a compiler leaves this file out.
"""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject

from asgi_analytics._fields cimport QueueFields, RequestFields
from asgi_analytics.instrumentation.stepped cimport CLOCK_MONOTONIC, read_clock, value_of
from asgi_analytics.instrumentation.written cimport QueryRecord, Writer, enqueue, mint, span_in, trace_now

from random import random

from asgi_analytics._context import current, suppressed
from asgi_analytics.instrumentation import asyncpg_rows
from asgi_analytics.instrumentation.lines import RECORD_BYTES
from asgi_analytics.instrumentation.queries import not_captured
from asgi_analytics.instrumentation.query_lines import all_fit
from asgi_analytics.instrumentation.sql import Statement, remembered

cdef object CURRENT = current, SUPPRESSED = suppressed
cdef dict MEMO = remembered.__self__
cdef object OF_TAG = asyncpg_rows.of_tag
cdef long long WEIGHT = RECORD_BYTES
cdef int FINGERPRINT = Statement._fields.index("fingerprint")
cdef int IS_READ = Statement._fields.index("is_read")
cdef int IS_CONTROL = Statement._fields.index("is_control")
cdef int DATA = Statement._fields.index("data")
cdef int DATA_WITHOUT_TEXT = Statement._fields.index("data_without_text")

cdef enum:
    OF_LIST, OF_ROW, OF_VALUE, OF_ANY


@cython.final
cdef class Watcher:
    """What `asyncpg.Watcher` is, for one replaced method."""

    cdef object tap
    cdef object rows_of
    cdef int rows
    cdef dict tags
    cdef bint tag
    cdef bint always
    # What is known of the recorder that the tap had last.
    cdef object recorder
    cdef object client
    cdef QueueFields queue
    cdef Writer writer
    cdef bint keeps_all
    cdef double slow
    cdef double sample_rate
    cdef int data
    cdef long long max_bytes

    def __init__(self, tap, rows_of, tag, always):
        self.tap, self.rows_of, self.tags = tap, rows_of, tap.tags
        self.tag, self.always = tag, always
        self.rows = OF_ANY
        for kind, known in ((OF_LIST, asyncpg_rows.of_list), (OF_ROW, asyncpg_rows.of_row), (OF_VALUE, asyncpg_rows.of_value)):
            if rows_of is known:
                self.rows = kind

    def watch(self, connection, query):
        """Return what is known of a statement that is about to run; None for one that is none of our business."""
        cdef PyObject *found
        recorder = self.tap.recorder
        if recorder is not self.recorder:
            self.learn(recorder)
        if recorder is None:
            return None
        statement = None
        if type(query) is str and not value_of(SUPPRESSED):
            request = value_of(CURRENT)
            if request is not None and (<RequestFields>request).excluded:
                return None
            found = PyDict_GetItemWithError(MEMO, query)
            if found != NULL:
                statement = <object>found
                if (<tuple>statement)[IS_CONTROL]:
                    return None
        if statement is None and (statement := recorder.watch(query)) is None:
            return None
        if self.tag and (self.always or not (<tuple>statement)[IS_READ]):
            self.tags[<size_t><PyObject *>connection] = None  # asks _execute for the tag
        return statement

    def succeeded(self, connection, of, started, result):
        """Record a query that went well; ``started`` is the `perf_counter_ns` before it."""
        cdef tuple statement = <tuple>of  # of a class of its own, which a check would refuse
        cdef RequestFields request
        cdef long long duration
        tag = None
        if self.tag and (self.always or not statement[IS_READ]):
            tag = self.tags.pop(<size_t><PyObject *>connection, None)
        if self.writer is None:
            if self.recorder is not None:
                self.recorder.succeeded(statement, started, self.rows_of, result, tag)
            return
        duration = (read_clock(CLOCK_MONOTONIC) - <long long>started) // 1000
        try:
            request = <RequestFields>value_of(CURRENT)
            if request is not None:
                request.db_queries += 1
                request.ordinary = False
                fingerprint = statement[FINGERPRINT]
                if request.fingerprints is None:
                    request.fingerprints = {fingerprint: 1}
                else:
                    request.fingerprints[fingerprint] = request.fingerprints.get(fingerprint, 0) + 1
                request.db_duration_ms += duration / 1000.0
            if self.keeps_all or duration >= self.slow or random() < self.sample_rate:
                self.keep(statement, duration, self.rows_affected(result, statement, tag), request)
        except Exception as error:
            not_captured(error)

    def failed(self, connection, statement, started, error):
        """Record a query that raised."""
        self.tags.pop(<size_t><PyObject *>connection, None)
        if self.recorder is not None:
            self.recorder.failed(statement, started, error)

    cdef int learn(self, recorder) except -1:
        if recorder is None:
            self.writer = None
        else:
            self.client = recorder._client
            self.queue = self.client._queue
            self.max_bytes = self.client._max_event_bytes
            self.data = DATA if recorder._capture_statement else DATA_WITHOUT_TEXT
            self.keeps_all, self.slow, self.sample_rate = recorder._keeps_all, recorder._slow, recorder._sample_rate
            self.writer = None if recorder._lines is None else recorder._lines.compiled
        self.recorder = recorder  # last: another thread may look meanwhile
        return 0

    cdef object rows_affected(self, object result, tuple statement, tag):
        if self.rows == OF_ANY:
            return self.rows_of(result, statement, tag)
        if tag:
            return OF_TAG(tag)
        if self.rows == OF_LIST:
            return len(<list?>result) if result or statement[IS_READ] else None
        if self.rows == OF_ROW:
            return 1 if result is not None else 0 if statement[IS_READ] else None
        return 1

    cdef int keep(self, tuple statement, long long duration, object rows, RequestFields request) except -1:
        """Make the record of a query, as `QueryLines.record` does."""
        cdef QueryRecord record
        cdef str data = statement[self.data]
        record = QueryRecord.__new__(QueryRecord)
        span = None
        trace = trace_now()
        if trace is not None:
            span = span_in(trace)
        if request is not None:
            user_id, session_id, endpoint = request.user_id, request.session_id, request.endpoint
            request_id = request.request_id
            if span is None:
                span = request.span
            if not all_fit(user_id, session_id, endpoint, request_id):
                self.recorder._keep(statement, duration, rows, request)
                return 0
            record.user_id, record.session_id, record.endpoint = user_id, session_id, endpoint
            record.request_id = request_id
        if span is not None:
            record.trace_id, record.span_id = span
        record.writer = self.writer
        record.weight = WEIGHT + len(data)
        record.data = data
        record.duration = duration
        record.rows = rows
        mint(record)
        if record.weight > self.max_bytes or not enqueue(self.queue, record):
            self.client.refuse_captured(record.weight)
        return 0

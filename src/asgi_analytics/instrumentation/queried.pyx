# cython: binding=False, boundscheck=False, cdivision=True, nonecheck=False, wraparound=False
"""The way of an ordinary query through asyncpg, compiled: what the replacements of `asyncpg.py` do for most queries.

It does nothing that they and `QueryRecorder` do not do, and hands over to these as soon as anything is out of the
ordinary. What it saves is the interpreter's part: a coroutine, and a call for each thing that is asked. A build without
a compiler leaves this file out.
"""

cimport cython
from cpython.dict cimport PyDict_Contains, PyDict_GetItemWithError, PyDict_Size
from cpython.object cimport PyObject

from asgi_analytics._fields cimport QueueFields, RequestFields
from asgi_analytics.instrumentation.settings cimport CaptureSettings
from asgi_analytics.instrumentation.stepped cimport (
    CLOCK_MONOTONIC,
    RUNNING,
    Py_DECREF,
    Py_INCREF,
    PyObject_CallFinalizerFromDealloc,
    Spares,
    Stepped,
    forget,
    held_by,
    iternextfunc,
    keep_spare,
    read_clock,
    sendfunc,
    set_destructor,
    set_steps,
    spare_of,
    step,
    step_on,
    taken_error,
    used_again,
    value_of,
)
from asgi_analytics.instrumentation.written cimport QueryRecord, Writer, enqueue, learn_to_append, mint, span_in, trace_in

from collections import deque
from random import random
from uuid import UUID

from asgi_analytics._context import current, suppressed
from asgi_analytics._fields import UNSAID
from asgi_analytics.instrumentation import asyncpg_rows
from asgi_analytics.instrumentation.http import HttpRequest
from asgi_analytics.instrumentation.lines import LONGEST_NAME, RECORD_BYTES
from asgi_analytics.instrumentation.queries import not_captured
from asgi_analytics.instrumentation.query_lines import all_fit
from asgi_analytics.instrumentation.sql import Statement, remembered
from asgi_analytics.instrumentation.written import otel_variable

cdef extern from *:
    """
    /* Makes instances callable by vectorcall, and their methods without an object for each call, as functions are.
       Cython has neither for a class. */
    static void set_vectorcall(PyObject *type, Py_ssize_t offset)
    {
        ((PyTypeObject *)type)->tp_vectorcall_offset = offset;
        ((PyTypeObject *)type)->tp_call = PyVectorcall_Call;
        ((PyTypeObject *)type)->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
    }

    /* Which of the arguments of a vectorcall has a name; -1 for none. */
    static Py_ssize_t place_of(const char *name, Py_ssize_t given, PyObject *names)
    {
        Py_ssize_t at;
        for (at = 0; names != NULL && at < PyTuple_GET_SIZE(names); at++)
            if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, at), name) == 0)
                return given + at;
        return -1;
    }
    """
    void set_vectorcall(object, Py_ssize_t)
    Py_ssize_t place_of(const char *, Py_ssize_t, PyObject *)

cdef extern from "Python.h":
    ctypedef PyObject *(*vectorcallfunc)(PyObject *, PyObject **, size_t, PyObject *) noexcept
    PyObject *Py_False
    PyObject *Py_None
    PyObject *Py_True
    PyObject *PyList_GET_ITEM(list, Py_ssize_t)
    PyObject *PyTuple_GET_ITEM(PyObject *, Py_ssize_t)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject *)
    bint PyUnicode_CheckExact(object)
    PyObject *PyObject_Vectorcall(PyObject *, PyObject **, size_t, PyObject *)
    Py_ssize_t PyVectorcall_NARGS(size_t)
    object PyMethod_New(object, object)

cdef object CURRENT = current, SUPPRESSED = suppressed, OTEL = otel_variable
cdef object HTTP_REQUEST = HttpRequest, NOBODY = UNSAID, UUID_TYPE = UUID
cdef Py_ssize_t LONGEST = LONGEST_NAME
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


cdef class Method:
    """Stands for a method of asyncpg: to whoever looks at it, it is the function that it calls."""

    cdef vectorcallfunc vectorcall
    cdef readonly object __wrapped__

    def __init__(self, original):
        self.__wrapped__ = original

    def __get__(self, instance, owner):
        return self if instance is None else PyMethod_New(self, instance)

    def __getattr__(self, name):
        return getattr(self.__wrapped__, name)

    def __repr__(self):
        return repr(self.__wrapped__)


@cython.final
cdef class QueryMethod(Method):
    # What `asyncpg._query` says of its wrapper; a text for the class would stand for that of the method.

    cdef list recorders
    # What is known of the recorder that the tap had last. First of all what each query asks for: so it lies together.
    cdef object recorder
    cdef Writer writer
    cdef QueueFields queue
    cdef long long max_bytes
    cdef int data
    cdef int rows
    cdef bint tag
    cdef bint always
    cdef bint keeps_all
    cdef double slow
    cdef double sample_rate
    cdef dict tags
    cdef object rows_of
    cdef object client

    @property
    def __doc__(self):
        return self.__wrapped__.__doc__

    def __init__(self, original, tap, rows_of, tag, always):
        Method.__init__(self, original)
        self.vectorcall = call_query
        self.recorders, self.rows_of, self.tags = tap.recorders, rows_of, tap.tags
        self.tag, self.always = tag, always
        self.rows = OF_ANY
        for kind, known in ((OF_LIST, asyncpg_rows.of_list), (OF_ROW, asyncpg_rows.of_row), (OF_VALUE, asyncpg_rows.of_value)):
            if rows_of is known:
                self.rows = kind

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


@cython.final
cdef class Query(Stepped):
    """One query on its way, in place of the coroutine of a replacement in Python."""

    cdef QueryMethod method
    cdef object connection
    cdef object query
    cdef object statement
    cdef long long started

    cdef object begin(self):
        watch(self.method, self)
        self.started = read_clock(CLOCK_MONOTONIC)
        return self.inner

    cdef int ended(self, object error, object result) except -1:
        method = self.method
        problem = None
        if self.statement is not None:
            if error is not None:
                failed(method, self, error)
            elif (<succeeded_as_it_is>succeeded)(method, self, result) < 0:
                problem = taken_error()
        self.method = self.connection = self.query = self.statement = None  # a task may outlive its query, and keeps this
        if problem is not None:
            if not isinstance(problem, Exception):
                raise problem
            not_captured(problem)
        return 0

    def __del__(self):
        if self.state == RUNNING:
            self.close()


# Called as if it could not raise, and looked at then: a try costs what it catches even where it catches nothing.
ctypedef int (*succeeded_as_it_is)(QueryMethod, Query, object) noexcept


cdef int watch(QueryMethod self, Query query) except -1:
    """Find out what is known of a statement that is about to run; nothing of one that is none of our business."""
    cdef PyObject *statement = NULL
    cdef PyObject *request
    if PyList_GET_ITEM(self.recorders, 0) != <PyObject *>self.recorder:
        self.learn(self.recorders[0])
    if self.recorder is None:
        return 0
    if PyUnicode_CheckExact(query.query) and held_by(SUPPRESSED) == Py_False:
        request = held_by(CURRENT)
        if request != Py_None and (<RequestFields>request).excluded:
            return 0
        statement = PyDict_GetItemWithError(MEMO, query.query)
    if statement == NULL:
        query.statement = self.recorder.watch(query.query)
        if query.statement is None:
            return 0
        statement = <PyObject *>query.statement
    elif PyTuple_GET_ITEM(statement, IS_CONTROL) == Py_True:
        return 0
    else:
        query.statement = <object>statement
    if self.tag and (self.always or PyTuple_GET_ITEM(statement, IS_READ) != Py_True):
        self.tags[<size_t><PyObject *>query.connection] = None  # asks _execute for the tag
    return 0


cdef int failed(QueryMethod self, Query query, object error) except -1:
    """Record a query that raised."""
    self.tags.pop(<size_t><PyObject *>query.connection, None)
    if self.recorder is not None:
        self.recorder.failed(query.statement, query.started, error)
    return 0


cdef int succeeded(QueryMethod self, Query query, object result) except -1:
    """Record a query that went well."""
    cdef PyObject *statement = <PyObject *>query.statement
    cdef RequestFields request
    cdef long long duration
    tag = None
    if self.tag and (self.always or PyTuple_GET_ITEM(statement, IS_READ) != Py_True):
        tag = self.tags.pop(<size_t><PyObject *>query.connection, None)
    if self.writer is None:
        if self.recorder is not None:
            self.recorder.succeeded(query.statement, query.started, self.rows_of, result, tag)
        return 0
    duration = (read_clock(CLOCK_MONOTONIC) - query.started) // 1000
    request = <RequestFields>value_of(CURRENT)
    if request is not None:
        count(request, <object>PyTuple_GET_ITEM(statement, FINGERPRINT), duration)
    if self.keeps_all or duration >= self.slow or random() < self.sample_rate:
        keep(self, query.statement, duration, rows_affected(self, result, query.statement, tag), request)
    return 0


cdef int count(RequestFields request, object fingerprint, long long duration) except -1:
    """Count a query in its request, as `queries.count` does."""
    cdef dict repeats = <dict>request.fingerprints
    cdef PyObject *found
    request.db_queries += 1
    request.ordinary = False
    request.db_duration_ms += duration / 1000.0
    if repeats is None:
        request.fingerprints = {fingerprint: 1}
    else:
        found = PyDict_GetItemWithError(repeats, fingerprint)
        repeats[fingerprint] = 1 if found == NULL else <object>found + 1
    return 0


cdef tuple who_asks(RequestFields request):
    """Return the user, the session, the endpoint and the id of a request, as its properties do."""
    cdef CaptureSettings settings
    cdef PyObject *route
    cdef PyObject *known
    user_id, session_id = request._user_id, request._session_id
    endpoint, request_id = request._endpoint, request._request_id
    if type(request) is HTTP_REQUEST and type(request.scope) is dict:
        settings = <CaptureSettings>request.settings
        if user_id is NOBODY and not settings.knows_users and not PyDict_Contains(request.scope, "user"):
            user_id = None
        if session_id is NOBODY and settings.session_id is None:
            session_id = None
        if endpoint is None and not PyDict_Contains(request.scope, "app_root_path"):
            route = PyDict_GetItemWithError(request.scope, "route")
            if route != NULL:
                known = PyDict_GetItemWithError(settings.alone, <size_t>route)
                if known != NULL:
                    endpoint = (<tuple>known)[1]
    if user_id is NOBODY:
        user_id = request.user_id
    if session_id is not None:
        session_id = request.session_id
    if endpoint is None:
        endpoint = request.endpoint
    if request_id is None:
        request_id = request.request_id
    return user_id, session_id, endpoint, request_id


cdef bint is_short(object text):
    return text is None or (type(text) is str and len(<str>text) <= LONGEST)


cdef long long rows_affected(QueryMethod self, object result, object statement, object tag) except -2:
    """Return the rows of a query; -1 where they are not known."""
    cdef bint is_read = PyTuple_GET_ITEM(<PyObject *>statement, IS_READ) == Py_True
    if self.rows == OF_LIST and tag is None and type(result) is list:
        return len(<list>result) if is_read or <list>result else -1
    if self.rows == OF_ANY:
        rows = self.rows_of(result, statement, tag)
    elif tag:
        rows = OF_TAG(tag)
    elif self.rows == OF_LIST:
        rows = len(result) if result or is_read else None
    elif self.rows == OF_ROW:
        return 1 if result is not None else 0 if is_read else -1
    else:
        return 1
    return -1 if rows is None else rows


cdef int keep(QueryMethod self, object statement, long long duration, long long rows, RequestFields request) except -1:
    """Make the record of a query, as `QueryLines.record` does."""
    cdef QueryRecord record
    cdef PyObject *data = PyTuple_GET_ITEM(<PyObject *>statement, self.data)
    record = QueryRecord.__new__(QueryRecord)
    span = None
    trace = trace_in(OTEL)
    if trace is not None:
        span = span_in(trace)
    if request is not None:
        user_id, session_id, endpoint, request_id = who_asks(request)
        if span is None:
            span = request.span
        if not (
            (type(user_id) is UUID_TYPE or is_short(user_id)) and is_short(session_id) and is_short(endpoint)
            and is_short(request_id)
        ) and not all_fit(user_id, session_id, endpoint, request_id):
            self.recorder._keep(statement, duration, None if rows < 0 else rows, request)
            return 0
        record.user_id, record.session_id, record.endpoint = user_id, session_id, endpoint
        record.request_id = request_id
    if span is not None:
        record.trace_id, record.span_id = span
    record.writer = self.writer
    record.weight = WEIGHT + PyUnicode_GET_LENGTH(data)
    record.data = <object>data
    record.duration = duration
    record.rows = rows
    mint(record)
    if record.weight > self.max_bytes or not enqueue(self.queue, record):
        self.client.refuse_captured(record.weight)
    return 0


cdef Spares SPARES


cdef void let_go(PyObject *query) noexcept:
    forget()
    if (<Query>query).method is None:
        keep_spare(&SPARES, query)
    elif PyObject_CallFinalizerFromDealloc(query) == 0:  # Cython's function does so for its own classes only
        SPARES.destroy(query)


set_destructor(Query, &SPARES, let_go)
set_steps(Query, <sendfunc>step, <iternextfunc>step_on)
learn_to_append(deque.append)


cdef PyObject *observed(QueryMethod method, PyObject *pending, PyObject *connection, PyObject *query) except NULL:
    """Return what awaits ``pending``, whose reference it takes."""
    cdef PyObject *spare = spare_of(&SPARES)
    cdef Query one = Query.__new__(Query) if spare == NULL else <Query>used_again(spare)
    one.inner = <object>pending
    Py_DECREF(pending)
    one.method = method
    one.connection = <object>connection
    one.query = <object>query
    Py_INCREF(<PyObject *>one)
    return <PyObject *>one


ctypedef PyObject *(*observed_as_it_is)(QueryMethod, PyObject *, PyObject *, PyObject *) noexcept


cdef PyObject *call_query(PyObject *me, PyObject **arguments, size_t flags, PyObject *names) noexcept:
    # Whatever is raised goes on without a line of ours in its traceback.
    cdef PyObject *pending = PyObject_Vectorcall(<PyObject *>(<QueryMethod>me).__wrapped__, arguments, flags, names)
    cdef Py_ssize_t given = PyVectorcall_NARGS(flags)
    cdef Py_ssize_t at = 1 if given > 1 else place_of("query", given, names)
    if pending == NULL or given < 1 or at < 1:
        return pending
    return (<observed_as_it_is>observed)(<QueryMethod>me, pending, arguments[0], arguments[at])


@cython.final
cdef class TagMethod(Method):
    # Passes calls on; those on a connection for which ``tags`` has a place go through ``otherwise``.

    cdef dict tags
    cdef object otherwise

    @property
    def __doc__(self):
        return self.__wrapped__.__doc__

    def __init__(self, original, dict tags, otherwise):
        Method.__init__(self, original)
        self.vectorcall = call_for_tag
        self.tags, self.otherwise = tags, otherwise


cdef PyObject *call_for_tag(PyObject *me, PyObject **arguments, size_t flags, PyObject *names) noexcept:
    cdef TagMethod self = <TagMethod>me
    cdef PyObject *function = <PyObject *>self.__wrapped__
    cdef int asked = 0
    if PyDict_Size(self.tags) > 0 and PyVectorcall_NARGS(flags) > 0:
        asked = (<asks_as_it_is>asks)(self.tags, <size_t>arguments[0])
        if asked < 0:
            return NULL
        if asked:
            function = <PyObject *>self.otherwise
    return PyObject_Vectorcall(function, arguments, flags, names)


cdef int asks(dict tags, size_t connection) except -1:
    return connection in tags


ctypedef int (*asks_as_it_is)(dict, size_t) noexcept


cdef int make_callable(type kind, Method instance) except -1:
    set_vectorcall(kind, <char *>&instance.vectorcall - <char *><PyObject *>instance)
    return 0


make_callable(QueryMethod, QueryMethod.__new__(QueryMethod))
make_callable(TagMethod, TagMethod.__new__(TagMethod))

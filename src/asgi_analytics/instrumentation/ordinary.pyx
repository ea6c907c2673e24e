# cython: binding=False, nonecheck=False
"""The way of an ordinary HTTP request, compiled: what `AnalyticsMiddleware` and `HttpRequest` do for most requests.

It does nothing that they do not do, and hands over to them as soon as anything is out of the ordinary; the tests run on
both. What it saves is the interpreter's part: two coroutines a message, a hundred look-ups by name. A build without a
compiler leaves this file out.
"""

cimport cython
from cpython.dict cimport PyDict_Contains, PyDict_GetItemWithError, PyDict_SetItem
from cpython.object cimport PyObject

from asgi_analytics._fields cimport QueueFields, RequestFields
from asgi_analytics.instrumentation.settings cimport CaptureSettings
from asgi_analytics.instrumentation.stepped cimport (
    CLOCK_MONOTONIC,
    RUNNING,
    PyContextVar_Reset,
    PyContextVar_Set,
    PyObject_CallFinalizerFromDealloc,
    PyObject_CallOneArg,
    Py_DECREF,
    Py_INCREF,
    Spares,
    Stepped,
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
from asgi_analytics.instrumentation.written cimport RequestRecord, Writer, enqueue, learn_to_append, mint, span_in, trace_in

from collections import deque
from uuid import UUID

from asgi_analytics._context import current, suppressed
from asgi_analytics._fields import UNSAID
from asgi_analytics._log import failure, log_problem
from asgi_analytics.instrumentation.http import METHODS, HttpRequest
from asgi_analytics.instrumentation.identity import acceptable_id, acceptable_request_id, raised
from asgi_analytics.instrumentation.lines import RECORD_BYTES, fits
from asgi_analytics.instrumentation.request import REQUEST_KEY
from asgi_analytics.instrumentation.written import otel_variable

cdef extern from *:
    """
    static PyObject *new_of(PyObject *type, PyObject *no_arguments)
    {
        return ((PyTypeObject *)type)->tp_new((PyTypeObject *)type, no_arguments, NULL);
    }

    /* What a call of an instance runs. A class that derives from this one, or another __call__, has its own again. */
    static void set_call(PyObject *type, ternaryfunc call)
    {
        ((PyTypeObject *)type)->tp_call = call;
    }
    """
    object new_of(object, tuple)
    ctypedef PyObject *(*ternaryfunc)(PyObject *, PyObject *, PyObject *)
    void set_call(object, ternaryfunc)

cdef extern from "Python.h":
    int PyDict_DelItem(dict, object)
    PyObject *PyErr_GetHandledException()
    void PyErr_Clear()
    object PyCFunction_New(PyMethodDef *, object)
    object PyObject_Call(object, tuple, PyObject *)
    object PyObject_GetAttr(object, object)
    ctypedef PyObject *(*PyCFunction)(PyObject *, PyObject *)
    ctypedef struct PyMethodDef:
        const char *ml_name
        PyCFunction ml_meth
        int ml_flags
        const char *ml_doc
    int METH_O

cdef object KEY = REQUEST_KEY, RUNNER = "_runner", CALL = "__call__"
cdef object BODY = "http.response.body", START = "http.response.start"
cdef object HTTP_REQUEST = HttpRequest, NOBODY = UNSAID, UUID_TYPE = UUID
cdef object CURRENT = current, SUPPRESSED = suppressed, OTEL = otel_variable
cdef dict METHOD_NAMES = METHODS
cdef long long WEIGHT = RECORD_BYTES


# Called as if they could not raise, and looked at then: a try costs what it catches even where it catches nothing.
ctypedef int (*note_as_it_is)(RequestFields, object) noexcept
ctypedef int (*finish_as_it_is)(RequestFields) noexcept
ctypedef int (*track_as_it_is)(RequestFields, CaptureSettings, dict, object) noexcept


cdef inline object member(object message, object name):
    """Return a member of a message; None for one that is not there."""
    cdef PyObject *found
    if type(message) is dict:
        found = PyDict_GetItemWithError(message, name)
        return None if found == NULL else <object>found
    return message.get(name)


@cython.final
cdef class Capture(Stepped):
    """One request on its way, in place of the coroutine of ``AnalyticsMiddleware.__call__``."""

    cdef Runner runner
    cdef object scope
    cdef object receive
    cdef object send_
    cdef object token
    cdef RequestFields request

    cdef object begin(self):
        """Take the request for an ordinary one, or give it to the middleware's own coroutine."""
        cdef CaptureSettings settings = self.runner.settings
        cdef RequestFields request
        cdef dict scope
        cdef PyObject *found
        if type(self.scope) is dict and not settings.has_excluded:
            scope = <dict>self.scope
            found = PyDict_GetItemWithError(scope, "type")
            if (
                found != NULL and <object>found == "http" and not PyDict_Contains(scope, KEY)
                and not value_of(SUPPRESSED) and (settings.is_warm or self.runner.is_warm())
            ):
                request = <RequestFields>new_of(HTTP_REQUEST, ())
                request.started = read_clock(CLOCK_MONOTONIC)
                request.ordinary = True
                found = PyDict_GetItemWithError(METHOD_NAMES, scope["method"])
                request.method = "_OTHER" if found == NULL else <object>found
                request._user_id = request._session_id = NOBODY
                request.settings = settings
                request.scope = scope
                request._receive = self.receive
                request._send = self.send_
                request.outcome = "ok"
                request.response_bytes = 0
                PyDict_SetItem(scope, KEY, request)
                self.request = request
                self.token = PyContextVar_Set(CURRENT, request)
                return self.runner.app(scope, self.receive, PyCFunction_New(&SEND, request))
        return self.runner.run(self.scope, self.receive, self.send_)

    cdef int ended(self, object error, object result) except -1:
        cdef RequestFields request = self.request
        token = self.token
        # A task may outlive its request, and keeps this.
        self.runner = self.scope = self.receive = self.send_ = self.token = self.request = None
        if request is None:
            return 0
        problem = None
        if error is not None:
            try:
                request.failed(error)
            except BaseException as raised_meanwhile:
                problem = raised_meanwhile
        if (<finish_as_it_is>finish)(request) < 0:
            problem = taken_error()
        if PyContextVar_Reset(CURRENT, token) < 0:
            PyErr_Clear()  # somebody runs the application in one context and ends it in another
            PyContextVar_Set(CURRENT, None)
        if problem is not None:
            raise problem
        return 0

    def __del__(self):
        if self.state == RUNNING:
            self.close()


@cython.final
cdef class Sending(Stepped):
    """One message on its way to the server, in place of the coroutine of ``HttpRequest.send``."""

    cdef RequestFields request
    cdef object message

    cdef object begin(self):
        return PyObject_CallOneArg(self.request._send, self.message)

    cdef int ended(self, object error, object result) except -1:
        cdef RequestFields request = self.request
        message = self.message
        self.request = self.message = None
        if error is None:
            if (<note_as_it_is>note)(request, message) < 0:
                problem = taken_error()
                if not isinstance(problem, Exception):
                    raise problem
                log_problem("send", "a message of a response was not captured: %s", failure(problem))
        elif isinstance(error, OSError):
            request.send_error = error
            request.ordinary = False
        return 0


cdef Spares CAPTURES, SENDINGS


cdef void let_go_of_capture(PyObject *capture) noexcept:
    if (<Capture>capture).runner is None:
        keep_spare(&CAPTURES, capture)
    elif PyObject_CallFinalizerFromDealloc(capture) == 0:  # Cython's function does so for its own classes only
        CAPTURES.destroy(capture)


cdef void let_go_of_sending(PyObject *sending) noexcept:
    if (<Sending>sending).request is None:
        keep_spare(&SENDINGS, sending)
    else:
        SENDINGS.destroy(sending)


set_destructor(Capture, &CAPTURES, let_go_of_capture)
set_destructor(Sending, &SENDINGS, let_go_of_sending)


cdef object send_message(object request, object message):
    cdef PyObject *spare = spare_of(&SENDINGS)
    cdef Sending sending = Sending.__new__(Sending) if spare == NULL else <Sending>used_again(spare)
    sending.request = <RequestFields>request
    sending.message = message
    return sending


cdef PyMethodDef SEND
SEND.ml_name = b"send"
SEND.ml_meth = <PyCFunction>send_message
SEND.ml_flags = METH_O
SEND.ml_doc = b"Pass a message on, and take note of it when it is sent."


cdef object known_kind(object kind):
    """Return the object that stands for a type of messages: an application has one for each, compared once."""
    global BODY, START
    if type(kind) is str:
        if <str>kind == "http.response.body":
            BODY = kind
        elif <str>kind == "http.response.start":
            START = kind
    return kind


cdef int note(RequestFields self, object message) except -1:
    """Take note of a message that was sent, as `HttpRequest.send` does."""
    cdef PyObject *handled
    kind = message["type"]
    if kind is not BODY and kind is not START:
        kind = known_kind(kind)
    if kind is BODY:
        body = member(message, "body")
        if type(body) is bytes:
            if <bytes>body and self.response_bytes is not None:
                self.response_bytes = <long long>self.response_bytes + len(<bytes>body)
        elif body and self.response_bytes is not None:
            self.response_bytes = self.response_bytes + len(body)
        if self.ended is None and not self.has_trailers and not member(message, "more_body"):
            self.ended = read_clock(CLOCK_MONOTONIC)
    elif kind is START:
        if self.status is None:
            self.ttfb = read_clock(CLOCK_MONOTONIC) - <long long>self.started
            self.status = message["status"]
            if member(message, "trailers"):
                self.has_trailers = True
            handled = PyErr_GetHandledException()
            if handled != NULL:
                self.answering = <object>handled
                Py_DECREF(handled)
                self.ordinary = False
            trace = trace_in(OTEL)
            if trace is not None:
                self.trace = trace
    else:
        self._note_extension(kind, message)
    return 0


cdef int finish(RequestFields self) except -1:
    """Track the request's event, as `CapturedRequest.finish` does."""
    cdef CaptureSettings settings = <CaptureSettings>self.settings
    cdef dict scope
    cdef PyObject *found
    cdef object known
    if (
        not self.ordinary
        or self.ended is None
        or self.status is None
        or not settings.asks_little
        or self.outer is not None
        or type(self.scope) is not dict
        or self.method == "HEAD"
    ):
        self.finish()
        return 0
    scope = <dict>self.scope
    found = PyDict_GetItemWithError(scope, "route")
    known = settings.unrouted
    if found != NULL:
        found = PyDict_GetItemWithError(settings.alone, <size_t>found)
        if found != NULL:
            known = <object>found
    if known is None or PyDict_Contains(scope, "app_root_path"):
        self.finish()
        return 0
    problem = None
    if (<track_as_it_is>track)(self, settings, scope, known) < 0:
        problem = taken_error()
    self.scope = None
    if PyDict_DelItem(scope, KEY) < 0:
        PyErr_Clear()  # the application has taken it away
    if not self.ordinary:
        self._let_go()
    if problem is not None:
        if not isinstance(problem, Exception):
            raise problem
        log_problem("finish", "a request was not captured: %s", failure(problem))
    return 0


cdef int track(RequestFields self, CaptureSettings settings, dict scope, object known) except -1:
    cdef QueueFields queue = settings.queue
    cdef RequestRecord record
    trace_id = span_id = user_id = None
    trace = trace_in(OTEL)
    if trace is not None or self.trace is not None:
        span = None
        if trace is not None:
            span = span_in(trace)
        if span is None and self.trace is not None:
            span = span_in(self.trace)
        self.trace = None
        self.span = span
        if span is not None:
            trace_id, span_id = <tuple>span
    self._endpoint = template = (<tuple>known)[1]
    if PyDict_Contains(scope, "user"):
        user_id = self._user_id = self._find_user(scope)
    elif settings.user_id is not None:
        self._user_id = None  # meanwhile: a callable may track events itself
        try:
            user_id = PyObject_CallOneArg(settings.user_id, scope)
            if user_id is not None and type(user_id) is not UUID_TYPE:
                user_id = acceptable_id(user_id, settings.user_id, "user_id")
        except Exception as error:
            raised(error, settings.user_id, "user_id")
            user_id = None
        self._user_id = user_id
    if user_id is not None and type(user_id) is not UUID_TYPE and not fits(user_id):
        settings.client.track_captured(self._event(self.status, self.ended))
        return 0
    request_id = self._request_id
    if request_id is None:
        request_id = sent_request_id(scope)
        if request_id is not None:
            self._request_id = request_id
    record = RequestRecord.__new__(RequestRecord)
    record.writer = <Writer>settings.compiled
    record.weight = WEIGHT
    mint(record)
    self._number = record.number
    record.endpoint, record.status, record.method, record.outcome = template, self.status, self.method, self.outcome
    record.duration = (<long long>self.ended - <long long>self.started) // 1000
    record.ttfb = -1 if self.ttfb is None else <long long>self.ttfb // 1000
    record.size = -1 if self.response_bytes is None else <long long>self.response_bytes
    record.user_id, record.trace_id, record.span_id, record.request_id = user_id, trace_id, span_id, request_id
    if not enqueue(queue, record):
        settings.client.refuse_captured(WEIGHT)
    return 0


cdef object sent_request_id(dict scope):
    cdef PyObject *headers = PyDict_GetItemWithError(scope, "headers")
    found = None
    if headers == NULL:
        return None
    if type(<object>headers) is list:
        for header in <list>headers:
            if type(header) is tuple:
                name = (<tuple>header)[0]
                if type(name) is bytes and len(<bytes>name) == 12 and <bytes>name == b"x-request-id":
                    found = acceptable_request_id((<tuple>header)[1])
            else:
                name, sent = header
                if name == b"x-request-id":
                    found = acceptable_request_id(sent)
        return found
    for name, sent in <object>headers or ():
        if name == b"x-request-id":
            found = acceptable_request_id(sent)
    return found


@cython.final
cdef class Runner:
    """What one middleware's requests run through.

    ``app`` is the application; ``run`` the middleware's own coroutine function, for what is out of the ordinary;
    ``is_warm`` looks at the application at the first request, and tells whether requests are captured at all.
    """

    cdef object app
    cdef object run
    cdef object is_warm
    cdef CaptureSettings settings

    def __init__(self, CaptureSettings settings, app, run, is_warm):
        self.settings = settings
        self.app = app
        self.run = run
        self.is_warm = is_warm

    def start(self, scope, receive, send):
        """Return what awaits the application."""
        return capture_of(self, scope, receive, send)


cdef Capture capture_of(Runner runner, object scope, object receive, object send):
    cdef PyObject *spare = spare_of(&CAPTURES)
    cdef Capture capture = Capture.__new__(Capture) if spare == NULL else <Capture>used_again(spare)
    capture.runner = runner
    capture.scope = scope
    capture.receive = receive
    capture.send_ = send
    return capture


cdef PyObject *enter(PyObject *middleware, PyObject *arguments, PyObject *keywords) except NULL:
    """Do what ``AnalyticsMiddleware.__call__`` does, without its frame."""
    cdef tuple given = <tuple>arguments
    runner = PyObject_GetAttr(<object>middleware, RUNNER)
    if type(runner) is Runner and keywords == NULL and len(given) == 3:
        capture = capture_of(<Runner>runner, given[0], given[1], given[2])
    else:
        capture = PyObject_Call(PyObject_GetAttr(<object>middleware, CALL), given, keywords)
    Py_INCREF(<PyObject *>capture)
    return <PyObject *>capture


def call_without_frame(middleware):
    """Let calls of a class's instances not go through a function of Python's; its ``__call__`` stays what it is."""
    set_call(middleware, <ternaryfunc>enter)


set_steps(Capture, <sendfunc>step, <iternextfunc>step_on)
set_steps(Sending, <sendfunc>step, <iternextfunc>step_on)
learn_to_append(deque.append)

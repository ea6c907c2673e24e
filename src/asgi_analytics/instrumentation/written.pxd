from asgi_analytics._fields cimport QueueFields

cdef class Writer:
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


cdef object trace_now()
cdef object span_in(object trace)
cdef int mint(Record record) except -1
cdef bint enqueue(QueueFields queue, Record record) except -1

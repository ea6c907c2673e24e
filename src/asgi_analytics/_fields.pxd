cimport cython


cdef class RequestFields:
    cdef public object _endpoint
    cdef public object _number
    cdef public object _receive
    cdef public object _request_id
    cdef public object _send
    cdef public object _session_id
    cdef public object _user_id
    cdef public object answering
    cdef public object close_code
    cdef public double db_duration_ms
    cdef public long long db_queries
    cdef public object ended
    cdef public object error_type
    cdef public bint excluded
    cdef public object fingerprints
    cdef public bint has_trailers
    cdef public object method
    cdef public object native
    cdef public bint ordinary
    cdef public object outcome
    cdef public object outer
    cdef public object response_bytes
    cdef public object scope
    cdef public object seen_errors
    cdef public object send_error
    cdef public object settings
    cdef public object span
    cdef public object started
    cdef public object status
    cdef public object trace
    cdef public object ttfb


cdef class QueueFields:
    cdef public long long bytes_in
    cdef public long long bytes_out
    cdef public long long calm_bytes
    cdef public long long calm_length
    cdef public object items


@cython.locals(item=object, weight=Py_ssize_t, number=Py_ssize_t, size=Py_ssize_t)
cpdef tuple fitting(list items, Py_ssize_t max_bytes)

@cython.locals(item=object, lines=list)
cpdef list lines_of(list items, list writers)

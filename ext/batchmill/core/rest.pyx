"""REST, whatever carries it: where a path leads, header values, error bodies.

Hot and native paths are decided here; every other path is the application's, which also answers 404 and 405.
"""

from batchmill.core.json_scanner cimport hex_value
from batchmill.core.json_tensor cimport write_string


cdef inline bint is_plain(unsigned char byte) noexcept nogil:
    return byte >= 0x20 and byte != 37 and byte != 0x7F


cdef bint decode_segment(string_view raw, string* target) noexcept nogil:
    """Percent-decodes one segment of a path; False: malformed, or a control character."""
    cdef size_t index = 0
    cdef int high, low
    cdef unsigned char byte
    while index < raw.size() and is_plain(raw.data()[index]):
        index += 1
    target.assign(raw.data(), index)        # all of it, but for the rare name that is escaped
    while index < raw.size():
        byte = <unsigned char> raw.data()[index]
        if byte == 37:
            if raw.size() - index < 3:
                return False
            high, low = hex_value(raw.data()[index + 1]), hex_value(raw.data()[index + 2])
            if high < 0 or low < 0:
                return False
            byte = <unsigned char> (high << 4 | low)
            index += 2
        if byte < 0x20 or byte == 0x7F:
            return False
        target.push_back(<char> byte)
        index += 1
    return target.size() > 0


cdef string_view next_segment(string_view* path) noexcept nogil:
    """Cuts the first segment (path begins with '/') off."""
    cdef size_t end = path[0].find(47, 1)
    cdef string_view segment
    if end == <size_t> -1:
        end = path[0].size()
    segment = path[0].substr(1, end - 1)
    path[0] = path[0].substr(end)
    return segment


cdef void only(RestRoute* route, RestKind kind, bint allowed) noexcept nogil:
    route.kind = kind if allowed else RestKind.kMethodNotAllowed


cdef void classify_model(string_view path, bint post, bint get, RestRoute* route) noexcept nogil:
    """path: what follows /v2/models."""
    cdef string_view segment
    cdef bint fine
    if path.size() < 2:
        return
    fine = decode_segment(next_segment(&path), &route.model)
    if path.size() == 0:
        if not fine:
            route.kind = RestKind.kBadPath
        return
    segment = next_segment(&path)
    if segment == string_view(b"versions") and path.size():
        fine = decode_segment(next_segment(&path), &route.version) and fine
    elif segment == string_view(b"labels") and path.size():
        fine = decode_segment(next_segment(&path), &route.label) and fine
    else:
        path = string_view(segment.data() - 1, segment.size() + 1 + path.size())
    if not fine:
        route.kind = RestKind.kBadPath
    elif path == string_view(b"/infer"):
        only(route, RestKind.kInfer, post)
    elif path == string_view(b"/ready") and not route.label.size():
        only(route, RestKind.kModelReady, get)


cdef void classify(string_view method, string_view target, bint metrics_only, RestRoute* route) noexcept nogil:
    cdef size_t query = target.find(63)
    cdef string_view path = target if query == <size_t> -1 else target.substr(0, query)
    cdef bint post = method == string_view(b"POST")
    cdef bint get = method == string_view(b"GET") or method == string_view(b"HEAD")
    route.kind = RestKind.kCold
    route.model.clear()
    route.version.clear()
    route.label.clear()
    if path.size() > 10 and path.substr(0, 11) == string_view(b"/v2/models/"):
        classify_model(path.substr(10), post, get, route)
    elif path == string_view(b"/v2/health/live") or path == string_view(b"/livez") or path == string_view(b"/healthz"):
        only(route, RestKind.kLive, get)
    elif path == string_view(b"/v2/health/ready") or path == string_view(b"/readyz"):
        only(route, RestKind.kReady, get)
    if metrics_only and route.kind != RestKind.kLive and route.kind != RestKind.kReady and path != string_view(b"/metrics"):
        route.kind = RestKind.kNowhere


cdef int64_t parse_header_length(string_view value) noexcept nogil:
    cdef size_t index
    cdef int64_t number = 0
    if value.size() == 0 or value.size() > 18:
        return -1
    for index in range(value.size()):
        if value.data()[index] < 48 or value.data()[index] > 57:
            return -1
        number = number * 10 + value.data()[index] - 48
    return number


cdef int64_t TIMEOUT_MAX_MS = 1000000 * 1000000


cdef int64_t parse_timeout_ms(string_view value) noexcept nogil:
    cdef int64_t number = parse_header_length(value)
    return number if number > 0 and number < TIMEOUT_MAX_MS else -1


cdef void append_error_json(Buffer* out, const Status& status) noexcept nogil:
    cdef size_t start = out.size
    out.append(b"{\"error\":", 9)
    if not write_string(out, string_view(status.message.data(), status.message.size())):
        out.size = start
        out.append(b"{\"error\":\"", 10)
        out.append(status.reason, string_view(status.reason).size())
        out.append(b"\"", 1)
    out.append(b"}", 1)


cdef const char* reason_phrase(int status) noexcept nogil:
    if status == 200:
        return b"OK"
    if status == 201:
        return b"Created"
    if status == 202:
        return b"Accepted"
    if status == 204:
        return b"No Content"
    if status == 304:
        return b"Not Modified"
    if status == 307:
        return b"Temporary Redirect"
    if status == 400:
        return b"Bad Request"
    if status == 401:
        return b"Unauthorized"
    if status == 403:
        return b"Forbidden"
    if status == 404:
        return b"Not Found"
    if status == 405:
        return b"Method Not Allowed"
    if status == 408:
        return b"Request Timeout"
    if status == 409:
        return b"Conflict"
    if status == 413:
        return b"Content Too Large"
    if status == 415:
        return b"Unsupported Media Type"
    if status == 417:
        return b"Expectation Failed"
    if status == 422:
        return b"Unprocessable Content"
    if status == 429:
        return b"Too Many Requests"
    if status == 431:
        return b"Request Header Fields Too Large"
    if status == 499:
        return b"Client Closed Request"
    if status == 500:
        return b"Internal Server Error"
    if status == 501:
        return b"Not Implemented"
    if status == 502:
        return b"Bad Gateway"
    if status == 503:
        return b"Service Unavailable"
    if status == 504:
        return b"Gateway Timeout"
    if status == 505:
        return b"HTTP Version Not Supported"
    return b"Status"


def route_of(bytes method, bytes target, bint metrics_only=False) -> tuple:
    """(kind, model, version, label) for tests."""
    cdef RestRoute route
    classify(string_view(<const char*> method, len(method)), string_view(<const char*> target, len(target)), metrics_only, &route)
    names = ("infer", "live", "ready", "model_ready", "cold", "bad_path", "method_not_allowed", "nowhere")
    return names[<int> route.kind], <bytes> route.model, <bytes> route.version, <bytes> route.label

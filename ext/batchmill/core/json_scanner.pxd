# A strict single-pass JSON scanner without recursion, and the texts of its refusals.
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core.status cimport Status

cdef extern from "number_text.hpp" namespace "batchmill" nogil:
    cdef cppclass NumberText:
        const char* begin
        const char* end
        uint64_t mantissa           # the first 19 digits
        int32_t digits, exponent
        cpp_bool negative, integer

    cpp_bool to_double(const NumberText& text, double* value)
    char* put_int(char* at, int64_t value)

cdef struct Scanner:
    const char* at
    const char* end
    const char* begin
    Status* status                  # says why, once failed
    bint failed
    const char* kind                # "input" or "output" while one is read, else NULL
    size_t index                    # of it
    const char* name                # its name, once read, else NULL
    size_t name_size
    const char* field               # the key whose value is read, else NULL

# All three return False, and nothing is scanned after them; the first one's text stays.
cdef bint fail(Scanner* scanner, const char* text) noexcept nogil           # INVALID_JSON: "... at byte 17: a string is cut"
cdef bint refuse(Scanner* scanner, const char* text) noexcept nogil         # INVALID_REQUEST: 'input "x": shape: ...'
cdef bint refuse_value(Scanner* scanner, const char* token, const char* wanted) noexcept nogil     # "... 300 given, INT8 wanted"

cdef bint scan_string(Scanner* scanner, string_view* raw, bint* escaped) noexcept nogil   # between the quotes, validated
cdef void unescape(string_view raw, string& target) noexcept nogil
cdef bint scan_number(Scanner* scanner, NumberText* number) noexcept nogil
cdef bint scan_literal(Scanner* scanner, const char* word, size_t size) noexcept nogil
cdef bint skip_value(Scanner* scanner) noexcept nogil               # any value, at most 64 deep


cdef inline char peek(Scanner* scanner) noexcept nogil:
    """The next character that is no white space; 0 at the end (and for a NUL: compare scanner.at to be sure)."""
    cdef char next
    while scanner.at < scanner.end:
        next = scanner.at[0]
        if next != 32 and next != 10 and next != 13 and next != 9:
            return next
        scanner.at += 1
    return 0


cdef inline bint expect(Scanner* scanner, char wanted) noexcept nogil:
    if peek(scanner) == wanted and scanner.at < scanner.end:
        scanner.at += 1
        return True
    return fail(scanner, b"another character was expected")


cdef inline bint begins_number(char next) noexcept nogil:
    return next == 45 or (next >= 48 and next <= 57)
cdef int hex_value(char digit) noexcept nogil                    # -1: no hex digit

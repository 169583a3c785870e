# A strict single-pass JSON scanner without recursion.
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.string cimport string
from libcpp.string_view cimport string_view

cdef extern from "number_text.hpp" namespace "batchmill" nogil:
    cdef cppclass NumberText:
        const char* begin
        const char* end
        uint64_t mantissa
        int32_t digits, exponent
        cpp_bool negative, integer

    cpp_bool to_double(const NumberText& text, double* value)
    char* put_float "batchmill::put_float<double>"(char* at, double value)
    char* put_float32 "batchmill::put_float<float>"(char* at, float value)
    char* put_int(char* at, int64_t value)
    char* put_uint(char* at, uint64_t value)
    float half_to_float(unsigned short)
    float brain_to_float(unsigned short)

cdef struct Scanner:
    const char* at
    const char* end
    const char* begin
    const char* error           # a static text; NULL: none
    size_t error_at             # bytes from begin
    string_view input           # whose description is being read; for the error's text

cdef bint fail(Scanner* scanner, const char* error) noexcept nogil
cdef char peek(Scanner* scanner) noexcept nogil                     # the next character that is no white space; 0: the end
cdef bint expect(Scanner* scanner, char wanted) noexcept nogil
cdef bint scan_string(Scanner* scanner, string_view* raw, bint* escaped) noexcept nogil   # between the quotes, validated
cdef void unescape(string_view raw, string& target) noexcept nogil
cdef bint scan_number(Scanner* scanner, NumberText* number) noexcept nogil
cdef bint scan_literal(Scanner* scanner, const char* word, size_t size) noexcept nogil
cdef bint skip_value(Scanner* scanner) noexcept nogil               # any value, at most 64 deep

# The wire format of protobuf, as far as its messages need it: a cursor over bytes that somebody else owns.
from libc.stdint cimport UINT32_MAX, uint8_t, uint64_t
from libcpp.string_view cimport string_view

from batchmill.core.status cimport utf8_length


cdef struct Cursor:
    const uint8_t* at
    const uint8_t* end
    bint bad


cdef inline uint64_t varint(Cursor* cursor) noexcept nogil:
    cdef uint64_t value = 0
    cdef int shift = 0
    cdef uint8_t byte
    while cursor.at < cursor.end and shift < 64:
        byte = cursor.at[0]
        cursor.at += 1
        value |= <uint64_t> (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7
    cursor.bad = True
    return 0


cdef inline uint64_t next_tag(Cursor* cursor) noexcept nogil:
    """A field number and a wire type; 0 and bad where no message has such a one: 32 bits, in at most five bytes."""
    cdef const uint8_t* begin = cursor.at
    cdef uint64_t tag = varint(cursor)
    if tag > UINT32_MAX or tag < 8 or cursor.at - begin > 5:
        cursor.bad = True
        return 0
    return tag


cdef inline Cursor block(Cursor* cursor) noexcept nogil:
    """The bytes of a length-delimited field; the cursor moves past them."""
    cdef uint64_t size = varint(cursor)
    cdef Cursor inner
    inner.at = cursor.at
    inner.end = cursor.at
    inner.bad = False
    if cursor.bad or size > <uint64_t> (cursor.end - cursor.at):
        cursor.bad = True
        return inner
    inner.end = cursor.at + size
    cursor.at = inner.end
    return inner


cdef inline string_view view(Cursor inner) noexcept nogil:
    return string_view(<const char*> inner.at, inner.end - inner.at)


cdef inline string_view text_of(Cursor* cursor) noexcept nogil:
    """A string field; what is no UTF-8 breaks the message, as protobuf has it: an id is sent back in a string, too."""
    cdef string_view given = view(block(cursor))
    cdef const uint8_t* at = <const uint8_t*> given.data()
    cdef size_t index = 0, length
    cdef uint8_t all_bits = 0
    for index in range(given.size()):
        all_bits |= at[index]
    if all_bits < 0x80:
        return given
    index = 0
    while index < given.size():
        length = utf8_length(at + index, given.size() - index)
        if length == 0:
            cursor.bad = True
            return given
        index += length
    return given


cdef inline void skip(Cursor* cursor, uint64_t tag) noexcept nogil:
    cdef int wire = tag & 7
    if wire == 0:
        varint(cursor)
    elif wire == 2:
        block(cursor)
    elif wire == 1 and cursor.end - cursor.at >= 8:
        cursor.at += 8
    elif wire == 5 and cursor.end - cursor.at >= 4:
        cursor.at += 4
    else:
        cursor.bad = True  # groups are not part of proto3

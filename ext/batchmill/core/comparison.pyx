"""How far two answers are apart: differences, angle, the greatest elements; and what many requests say together.

Floats are compared as doubles, in one pass over chunks that stay in the first cache. Two NaN are equal, and so are two infinities of one
sign; where only one answer has them, the difference cannot be measured, and they disagree. As numpy has it, NaN is greater than all else.
"""

from libc.math cimport fabs, INFINITY, isfinite, isnan, sqrt
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy

from batchmill.core.closeness cimport value_at
from batchmill.core.histogram cimport add
from batchmill.core.tensor cimport datatype_of, element_bytes, kMaxRank

cdef size_t CHUNK = 512             # elements that are compared at once
cdef int TOP = 5


# Rows.
cdef struct Top:
    int count                       # of the greatest elements seen so far, greatest first
    double[5] values
    int64_t[5] places


cdef inline bint is_greater(double a, double b) noexcept nogil:
    return a > b or (isnan(a) and not isnan(b))


cdef inline void see(Top* top, double value, int64_t place) noexcept nogil:
    """Places come in ascending order, and of equals the first stays before the others."""
    cdef int at = top.count
    if at == TOP:
        if not is_greater(value, top.values[at - 1]):
            return
        at -= 1
    else:
        top.count += 1
    while at > 0 and is_greater(value, top.values[at - 1]):
        top.values[at], top.places[at] = top.values[at - 1], top.places[at - 1]
        at -= 1
    top.values[at], top.places[at] = value, place


cdef double shared(const Top* a, const Top* b) noexcept nogil:
    cdef int one, other, found = 0
    for one in range(a.count):
        for other in range(b.count):
            found += a.places[one] == b.places[other]
    return <double> found / TOP


# Elements.
cdef void load(const uint8_t* source, DataType dtype, size_t count, double* target) noexcept nogil:
    cdef size_t index, width = element_bytes(dtype)
    cdef float single
    if dtype == DataType.kFp64:
        memcpy(target, source, count * 8)
    elif dtype == DataType.kFp32:
        for index in range(count):
            memcpy(&single, source + 4 * index, 4)
            target[index] = single
    else:
        for index in range(count):
            target[index] = value_at(source + width * index, dtype)


cdef struct Sums:
    double ab, aa, bb


cdef void compare_chunk(const double* a, const double* b, size_t count, const Tolerance& tolerance, Sums* sums,
                        Compared* told) noexcept nogil:
    cdef size_t index
    cdef double difference, greater
    for index in range(count):
        if not (isfinite(a[index]) and isfinite(b[index])):
            if not (a[index] == b[index] or (isnan(a[index]) and isnan(b[index]))):
                told.finite = told.equal = False
                told.excess = INFINITY
            continue
        sums.ab += a[index] * b[index]
        sums.aa += a[index] * a[index]
        sums.bb += b[index] * b[index]
        difference = fabs(a[index] - b[index])
        if difference == 0:
            continue
        told.equal = False
        greater = max(fabs(a[index]), fabs(b[index]))
        told.max_abs = max(told.max_abs, difference)
        told.max_rel = max(told.max_rel, difference / greater)
        greater = tolerance.atol + tolerance.rtol * fabs(a[index])
        told.excess = max(told.excess, difference / greater if greater > 0 else INFINITY)


cdef double cosine_of(const Sums& sums) noexcept nogil:
    """Of two vectors without a length 1, of one such vector 0."""
    cdef double lengths = sqrt(sums.aa) * sqrt(sums.bb)
    if sums.aa == 0 or sums.bb == 0:
        return 1 if sums.aa == sums.bb else 0
    return max(-1.0, min(1.0, sums.ab / lengths)) if isfinite(lengths) and isfinite(sums.ab) and lengths > 0 else 1


cdef void compare_row(const uint8_t* a, const uint8_t* b, DataType dtype, size_t count, const Tolerance& tolerance, Sums* sums,
                      Compared* told) noexcept nogil:
    cdef double[512] left, right
    cdef Top top, other
    cdef size_t at = 0, some, index, width = element_bytes(dtype)
    top.count = other.count = 0
    while at < count:
        some = min(CHUNK, count - at)
        load(a + at * width, dtype, some, left)
        load(b + at * width, dtype, some, right)
        compare_chunk(left, right, some, tolerance, sums, told)
        if told.rows:
            for index in range(some):
                see(&top, left[index], <int64_t> (at + index))
                see(&other, right[index], <int64_t> (at + index))
        at += some
    if told.rows:
        told.argmax_same += top.places[0] == other.places[0]
        if told.has_top:
            told.top_same += shared(&top, &other)


cdef bint same_shape(const TensorView& a, const TensorView& b) noexcept nogil:
    return (a.dtype == b.dtype and a.shape.rank == b.shape.rank and a.size == b.size
            and memcmp(a.shape.dims, b.shape.dims, a.shape.rank * sizeof(int64_t)) == 0) or (
            a.dtype == DataType.kBytes == b.dtype and a.shape.rank == b.shape.rank
            and memcmp(a.shape.dims, b.shape.dims, a.shape.rank * sizeof(int64_t)) == 0)


cdef Compared compared(const TensorView& answered, const TensorView& candidate, const Tolerance& tolerance) noexcept nogil:
    cdef Compared told
    cdef Sums sums = Sums(0, 0, 0)
    cdef size_t row = 0, count, width = element_bytes(answered.dtype)
    cdef int64_t last = answered.shape.dims[answered.shape.rank - 1] if answered.shape.rank else 1
    told.shapes_differ = not same_shape(answered, candidate)
    if told.shapes_differ:
        told.excess = INFINITY
        return told
    told.floats = (answered.dtype == DataType.kFp32 or answered.dtype == DataType.kFp64 or answered.dtype == DataType.kFp16
                   or answered.dtype == DataType.kBf16)
    told.equal = answered.size == candidate.size and (answered.size == 0 or memcmp(answered.data, candidate.data, answered.size) == 0)
    if not told.floats or answered.size == 0:
        told.agrees = told.equal
        told.excess = 0 if told.equal else INFINITY
        return told
    count = answered.size // width
    if last < 2:
        last = <int64_t> count
    else:
        told.rows, told.has_top = <int64_t> count // last, last > TOP
    if told.equal:
        told.agrees, told.argmax_same = True, told.rows
        told.top_same = <double> told.rows if told.has_top else 0
        return told
    told.equal = True       # 0 and -0 are
    while row < count:
        compare_row(answered.data + row * width, candidate.data + row * width, answered.dtype, <size_t> last, tolerance, &sums, &told)
        row += <size_t> last
    told.cosine = cosine_of(sums)
    told.agrees = told.argmax_same == told.rows if tolerance.by_argmax and told.rows else told.excess <= 1
    return told


cdef void count_compared(OutputFigures* figures, const Compared& one) noexcept nogil:
    add(figures.compared, 1)
    add(figures.agreeing, <uint64_t> one.agrees)
    add(figures.equal, <uint64_t> one.equal)
    if one.shapes_differ:
        add(figures.shapes_differ, 1)
    if one.shapes_differ or not one.floats:
        return
    if not one.finite:
        add(figures.not_finite, 1)
    figures.max_abs.store(max(<double> figures.max_abs.load(), one.max_abs))
    figures.max_rel.store(max(<double> figures.max_rel.load(), one.max_rel))
    figures.abs.put(one.max_abs)
    figures.rel.put(one.max_rel)
    figures.cosine.put(one.cosine)
    if one.rows:
        add(figures.rows, <uint64_t> one.rows)
        add(figures.argmax_same, <uint64_t> one.argmax_same)
        figures.argmax.put(<double> one.argmax_same / <double> one.rows)
    if one.has_top:
        figures.top.put(one.top_same / <double> one.rows)


# For Python.
cdef dict told_moments(const RunningMoments* moments):
    cdef uint64_t count = moments.count.load()
    return {"count": count, "mean": moments.mean.load(), "variance": moments.squares.load() / (count - 1) if count > 1 else 0.0}


cdef dict told_figures(OutputFigures* figures):
    return {
        "compared": figures.compared.load(), "agreeing": figures.agreeing.load(), "equal": figures.equal.load(),
        "shapes_differ": figures.shapes_differ.load(), "not_finite": figures.not_finite.load(),
        "rows": figures.rows.load(), "argmax_same": figures.argmax_same.load(),
        "max_abs": figures.max_abs.load(), "max_rel": figures.max_rel.load(),
        "abs": told_moments(&figures.abs), "rel": told_moments(&figures.rel), "cosine": told_moments(&figures.cosine),
        "argmax": told_moments(&figures.argmax), "top": told_moments(&figures.top),
    }


# For tests.
cdef TensorView view_of(bytes raw, bytes datatype, shape):
    cdef TensorView view
    cdef int axis
    if len(shape) > kMaxRank:
        raise ValueError(f"{len(shape)} axes given, at most {kMaxRank} wanted")
    view.dtype = datatype_of(<const char*> datatype)
    view.shape.rank = len(shape)
    for axis in range(len(shape)):
        view.shape.dims[axis] = shape[axis]
    view.data, view.size = <const uint8_t*> <const char*> raw, len(raw)
    return view


def compare(tuple answered, tuple candidate, *, double rtol=1e-3, double atol=1e-5, bint by_argmax=False) -> dict:
    """What is said of two tensors (raw bytes, datatype, shape), by the names of comparison.hpp's Compared."""
    cdef bytes datatype = answered[1].encode(), other = candidate[1].encode()
    cdef Tolerance tolerance
    cdef Compared told
    tolerance.rtol, tolerance.atol, tolerance.by_argmax = rtol, atol, by_argmax
    told = compared(view_of(answered[0], datatype, answered[2]), view_of(candidate[0], other, candidate[2]), tolerance)
    return {
        "shapes_differ": told.shapes_differ, "floats": told.floats, "equal": told.equal, "finite": told.finite, "agrees": told.agrees,
        "max_abs": told.max_abs, "max_rel": told.max_rel, "excess": told.excess, "cosine": told.cosine, "rows": told.rows,
        "argmax_same": told.argmax_same, "top_same": told.top_same, "has_top": told.has_top,
    }

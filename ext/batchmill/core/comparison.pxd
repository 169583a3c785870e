# How far two answers are apart, output by output.
from libc.stdint cimport int64_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.atomic cimport atomic
from libcpp.string cimport string
from libcpp.vector cimport vector

from batchmill.core.histogram cimport Counter
from batchmill.core.tensor cimport DataType, Shape, TensorView

cdef extern from "comparison.hpp" namespace "batchmill" nogil:
    cdef cppclass RunningMoments:
        atomic[uint64_t] count
        atomic[double] mean, squares
        void put(double value)

    cdef cppclass Tolerance:
        double rtol, atol
        cpp_bool by_argmax

    cdef cppclass Compared:
        cpp_bool shapes_differ, floats, equal, finite, agrees
        double max_abs, max_rel, excess, cosine
        int64_t rows, argmax_same
        cpp_bool has_top
        double top_same

    cdef cppclass OutputFigures:
        Counter compared, equal, agreeing, shapes_differ, not_finite, rows, argmax_same
        atomic[double] max_abs, max_rel
        RunningMoments abs, rel, cosine, argmax, top

    cdef cppclass NamedTensor:
        string name, bytes
        DataType dtype
        Shape shape

    cdef cppclass Disagreement:
        string id, output
        double excess, max_abs, max_rel, cosine
        cpp_bool shapes_differ, whole
        int64_t unix_ms
        vector[NamedTensor] inputs, answered, candidate

# Of what was answered and of what a candidate says in its place.
cdef Compared compared(const TensorView& answered, const TensorView& candidate, const Tolerance& tolerance) noexcept nogil

# Takes it into account. One thread at a time.
cdef void count_compared(OutputFigures* figures, const Compared& one) noexcept nogil

# {"count", "mean", "variance"}: the unbiased variance, 0 below two numbers.
cdef dict told_moments(const RunningMoments* moments)
cdef dict told_figures(OutputFigures* figures)

# Run times by rows and by the width of a row, learned from what is served.
from libc.stdint cimport int64_t
from libcpp cimport bool as cpp_bool
from libcpp.atomic cimport atomic
from libcpp.vector cimport vector

from batchmill.core.tensor cimport TensorView

cdef extern from "predictor.hpp" namespace "batchmill" nogil:
    int kKnots "batchmill::Curve::kKnots"
    int kWidths "batchmill::RunTimes::kWidths"

    cdef cppclass Curve:
        atomic[double]* knots
        atomic[double] spread, row_ns
        atomic[int64_t] best_rows, knee_rows, next_rows, learned, measured_ns
        atomic[cpp_bool] recalled

    cdef cppclass RunTimes:
        atomic[Curve*]* curves
        Curve* made(int width)

    cdef cppclass Estimate:
        const Curve* curve
        double scale

# The class of a row's elements over all inputs, of their axes from first_axis on. Equal shapes have equal widths. Below 0: always 0.
cdef int width_of(const vector[TensorView]& inputs, int first_axis) noexcept nogil

# What is known about such rows: their own curve, or the nearest narrower one scaled up, or the nearest wider one.
cdef Estimate find(RunTimes* times, int width) noexcept nogil

# Of a run of so many rows, ns; 0: unknown. guarded_ns: what it will hardly take more than.
cdef double expected_ns(const Estimate& known, int64_t rows) noexcept nogil
cdef double guarded_ns(const Estimate& known, int64_t rows) noexcept nogil

# Of a row in the batch size that serves most rows a second, ns; 0: unknown.
cdef double row_ns(const Estimate& known) noexcept nogil

# Whether it rests on a run of late: one that does not may have been wrong for ever.
cdef bint is_fresh(const Estimate& known, int64_t now_ns) noexcept nogil

# Whether a run that was served stands behind it. What is only recalled makes batches; it refuses nobody and runs nothing on I/O threads.
cdef bint is_confirmed(const Estimate& known) noexcept nogil

# Begins a curve with run times at 1, 2, 4 ... rows, ns, 0 where one is not known, that were learned elsewhere.
cdef void recall(Curve* curve, const vector[double]& knots, double spread) noexcept nogil

# Takes a measured run into account.
cdef void learn(Curve* curve, int64_t rows, double run_ns, int64_t now_ns) noexcept nogil

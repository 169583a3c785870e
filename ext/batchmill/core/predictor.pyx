"""How long a run of so many rows will take: an online model of what was measured.

For each width of a row a curve through points at 1, 2, 4 ... rows, with lines between them. A run moves the two points beside it towards
what it took, in proportion to how near they are (normalised least mean squares; Widrow and Hoff, 1960), and by no more than
four times the usual deviation (Huber, 1964): one run that the machine held up says little, many say that the model has become slower.
A run that took less than half of what was expected is believed: nothing makes it faster by accident, and who is taken to be slow is
refused requests from which one would learn better.
"""

from libc.math cimport fabs
from libc.stdint cimport uint64_t

from batchmill.core.tensor cimport TensorView

cdef extern from * nogil:
    int leading_zeros "__builtin_clzll"(uint64_t)

cdef double RATE = 0.125                # of the way from what was expected to what was measured
cdef double SPREAD_RATE = 0.0625
cdef double FIRST_SPREAD = 0.25
cdef double LEAST_SPREAD = 0.05         # or a model that became slower would be believed too late
cdef double CLIP = 4                    # deviations beyond which a run counts as one of so many
cdef double GUARD = 2                   # deviations above what is expected that a run hardly takes
cdef double WORTH_CUTTING_NS = 500000   # shorter runs are never cut: handing a batch over costs, too
cdef double NEARLY_BEST = 1.0625        # a row may cost so much of what it costs at best for smaller batches, and shorter waits
cdef double AS_GOOD = 1.015             # what runs of one size differ by, on average over some
cdef int64_t FRESH_NS = 1000000000
cdef int64_t EXPLORE = 64               # every so many runs the next larger size is worth another look


cdef int width_of(const vector[TensorView]& inputs, int first_axis) noexcept nogil:
    cdef uint64_t elements = 0, of_one
    cdef size_t index
    cdef int axis, octave
    if first_axis < 0:
        return 0
    for index in range(inputs.size()):
        of_one = 1
        for axis in range(first_axis, inputs[index].shape.rank):
            of_one *= <uint64_t> inputs[index].shape.dims[axis]
        elements += of_one
    if elements < 4:
        return <int> elements
    octave = 63 - leading_zeros(elements)
    octave = octave * 4 + <int> (elements >> (octave - 2) & 3)
    return octave if octave < kWidths else kWidths - 1


cdef Estimate find(RunTimes* times, int width) noexcept nogil:
    """A wider row is taken to cost more in proportion; of a narrower one no more is known than that it costs no more."""
    cdef Estimate found
    cdef int at = width
    found.curve = times.curves[width].load()
    found.scale = 1
    while found.curve == NULL and at > 0:
        at -= 1
        found.curve = times.curves[at].load()
        found.scale *= 1.1892071150027212       # the fourth root of 2
    if found.curve != NULL:
        return found
    found.scale = 1
    at = width + 1
    while found.curve == NULL and at < kWidths:
        found.curve = times.curves[at].load()
        at += 1
    return found


cdef inline int floor_knot(int64_t rows) noexcept nogil:
    cdef int at = 63 - leading_zeros(<uint64_t> (rows if rows > 1 else 1))
    return at if at < kKnots else kKnots - 1


cdef double on_curve(const Curve* curve, int64_t rows) noexcept nogil:
    cdef int below = floor_knot(rows), above = below + 1, second
    cdef double low, high, slope, least
    while below >= 0 and curve.knots[below].load() == 0:
        below -= 1
    while above < kKnots and curve.knots[above].load() == 0:
        above += 1
    if below < 0:
        return curve.knots[above].load() if above < kKnots else 0
    low = curve.knots[below].load()
    if rows == <int64_t> 1 << below:
        return low
    if above < kKnots:
        high = curve.knots[above].load()
        return low + (high - low) * <double> (rows - (1 << below)) / <double> ((1 << above) - (1 << below))
    second = below - 1      # beyond what was measured: as it went there, but never faster than in proportion, nor for nothing
    while second >= 0 and curve.knots[second].load() == 0:
        second -= 1
    slope = low / (1 << below)
    if second >= 0:
        least = slope / 8
        slope = min(slope, max(least, (low - curve.knots[second].load()) / ((1 << below) - (1 << second))))
    return low + slope * <double> (rows - (1 << below))


cdef double expected_ns(const Estimate& known, int64_t rows) noexcept nogil:
    return on_curve(known.curve, rows) * known.scale if known.curve != NULL else 0


cdef double guarded_ns(const Estimate& known, int64_t rows) noexcept nogil:
    return on_curve(known.curve, rows) * known.scale * (1 + GUARD * known.curve.spread.load()) if known.curve != NULL else 0


cdef double row_ns(const Estimate& known) noexcept nogil:
    return known.curve.row_ns.load() * known.scale if known.curve != NULL else 0


cdef bint is_fresh(const Estimate& known, int64_t now_ns) noexcept nogil:
    return is_confirmed(known) and now_ns - known.curve.measured_ns.load() < FRESH_NS


cdef bint is_confirmed(const Estimate& known) noexcept nogil:
    return known.curve != NULL and not known.curve.recalled.load()


cdef void look_for_best(Curve* curve) noexcept nogil:
    """A size next to the best one that was never measured is worth a look, and every now and then one that was.

    Sizes that are as good as the best but for noise are not larger for it: the first rows of a batch wait for its last.
    """
    cdef double best = 0, cost
    cdef int at, best_at = 0, as_good_at, knee = -1
    for at in range(kKnots):
        cost = curve.knots[at].load() / (1 << at)
        if cost > 0 and (best == 0 or cost < best):
            best, best_at = cost, at
    at = 0
    while not 0 < curve.knots[at].load() / (1 << at) <= best * AS_GOOD:
        at += 1
    as_good_at = at
    for at in range(as_good_at + 1):
        cost = curve.knots[at].load()
        if knee < 0 and cost >= WORTH_CUTTING_NS and cost / (1 << at) <= best * NEARLY_BEST:
            knee = at
    curve.next_rows.store(0)
    if best_at + 1 < kKnots and curve.knots[best_at + 1].load() == 0:
        curve.next_rows.store(<int64_t> 2 << best_at)
    elif knee >= 0 and curve.learned.load() % EXPLORE == 0:
        curve.next_rows.store(<int64_t> 2 << knee)
    curve.row_ns.store(best)
    curve.best_rows.store(<int64_t> 1 << as_good_at)
    curve.knee_rows.store(<int64_t> 1 << knee if knee >= 0 else 0)


cdef void first_look(Curve* curve, int at, int64_t rows, double run_ns) noexcept nogil:
    """One of the points beside it, or both, are not known: the line shall go through what was measured, and rise as far as is likely."""
    cdef int64_t low = <int64_t> 1 << at
    cdef double near = <double> (rows - low) / <double> low
    cdef double a = curve.knots[at].load(), b = curve.knots[at + 1].load()
    if a == 0 and b == 0:
        curve.knots[at].store(run_ns * <double> low / <double> rows)
        curve.knots[at + 1].store(run_ns * <double> (2 * low) / <double> rows)
    elif a == 0:
        curve.knots[at].store(min(run_ns, max(run_ns * <double> low / <double> rows, b - (b - run_ns) / (1 - near))))
    else:
        curve.knots[at + 1].store(max(run_ns, min(run_ns * <double> (2 * low) / <double> rows, a + (run_ns - a) / near)))


cdef void adjust(Curve* curve, int at, double near, double run_ns) noexcept nogil:
    """near: how much of the way to the next point it was; 0: it was of this point's size."""
    cdef double a = curve.knots[at].load(), b = curve.knots[at + 1].load() if near > 0 else 0
    cdef double expected = a + (b - a) * near
    cdef double spread = curve.spread.load()
    cdef double error = run_ns - expected, most = CLIP * spread * expected, step
    curve.spread.store(max(LEAST_SPREAD, spread + (min(fabs(error), most) / expected - spread) * SPREAD_RATE))
    step = error / 2 if run_ns < expected / 2 else RATE * max(-most, min(most, error))
    step /= near * near + (1 - near) * (1 - near)
    curve.knots[at].store(max(1.0, a + step * (1 - near)))
    if near > 0:
        curve.knots[at + 1].store(max(1.0, b + step * near))


cdef void recall(Curve* curve, const vector[double]& knots, double spread) noexcept nogil:
    cdef int at
    for at in range(min(kKnots, <int> knots.size())):
        curve.knots[at].store(knots[at])
    curve.spread.store(max(LEAST_SPREAD, spread))
    curve.learned.store(1)
    curve.recalled.store(True)
    look_for_best(curve)


cdef void confirm(Curve* curve, int64_t rows, double run_ns) noexcept nogil:
    """Where the first run was much faster than was recalled, all sizes will be: those that are not asked for must not stay slow."""
    cdef double share = run_ns / on_curve(curve, rows)
    cdef int at
    if share < 0.5:
        for at in range(kKnots):
            curve.knots[at].store(curve.knots[at].load() * share)
    curve.recalled.store(False)


cdef void learn(Curve* curve, int64_t rows, double run_ns, int64_t now_ns) noexcept nogil:
    cdef int at = floor_knot(rows)
    cdef int64_t low = <int64_t> 1 << at
    run_ns = max(run_ns, 1.0)
    if at == kKnots - 1:
        run_ns, rows = run_ns * <double> low / <double> rows, low
    if curve.recalled.load():
        confirm(curve, rows, run_ns)
    elif curve.learned.load() == 0:
        curve.spread.store(FIRST_SPREAD)
    if rows == low and curve.knots[at].load() == 0:
        curve.knots[at].store(run_ns)
    elif rows != low and (curve.knots[at].load() == 0 or curve.knots[at + 1].load() == 0):
        first_look(curve, at, rows, run_ns)
    else:
        adjust(curve, at, <double> (rows - low) / <double> low, run_ns)
    curve.learned.store(curve.learned.load() + 1)
    curve.measured_ns.store(now_ns)
    look_for_best(curve)

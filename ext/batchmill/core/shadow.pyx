"""The thread that runs shadows: one for all, in the scheduler's idle class, so that the kernel lets every thread of a caller go first.

It runs batches by the candidate's own limits, never on the wide pool, and only while no version has callers' rows for an executor. The
data plane waits for nothing that it holds: requests come and go over stacks without locks, and memory is freed by the thread it belongs
to. It touches a candidate only by a reference that a request in its hand has.
"""

from libc.stdint cimport int64_t, uint64_t
from libcpp.vector cimport vector

from batchmill.core.batch cimport Scratch
from batchmill.core.batcher cimport BatchLimits, fitting, most_rows
from batchmill.core.clock cimport now_ns, thread_ns
from batchmill.core.histogram cimport add, kPreferredSizes
from batchmill.core.message cimport InferRequest, Mirror
from batchmill.core.mirror cimport enter
from batchmill.core.ort cimport delete_run_options, new_run_options, set_terminate
from batchmill.core.predictor cimport Estimate, find, width_of
from batchmill.core.router cimport ModelVersion, Shadow
from batchmill.core.shadow_figures cimport count_error
from batchmill.core.shadow_run cimport run_batch, settle_back
from batchmill.core.signature cimport check
from batchmill.core.status cimport Status
from batchmill.core.sub_queues cimport same_shape
from batchmill.core.threads cimport pthread_join, start_thread

cdef extern from * nogil:
    """
    #include <poll.h>
    #include <sched.h>
    #include <deque>
    #include "executor.hpp"
    struct batchmill_lane { batchmill::Shadow* shadow; std::deque<batchmill::InferRequest*> waiting; };
    static inline void batchmill_idle_class() {
        sched_param none{};
        pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    }
    static inline void batchmill_sleep(int64_t ns) {
        timespec time{static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
        nanosleep(&time, nullptr);
    }
    // Until something comes, or a second has passed. What came before others knew that it dozes is not overlooked.
    static inline void batchmill_doze(batchmill::ShadowLine* line) {
        line->dozing.store(true);
        if (!line->inbox.head.load() && !line->stopping.load()) {
            pollfd one{line->wake_fd, POLLIN, 0};
            poll(&one, 1, 1000);
        }
        line->dozing.store(false);
        eventfd_t wakes;
        eventfd_read(line->wake_fd, &wakes);
    }
    static inline void batchmill_forget_lane(std::vector<batchmill_lane>& lanes, size_t index) {
        std::swap(lanes[index], lanes.back());
        lanes.pop_back();
    }
    static inline void batchmill_wake(batchmill::ShadowLine* line) { eventfd_write(line->wake_fd, 1); }
    """
    cdef cppclass Waiting "std::deque<batchmill::InferRequest*>":
        size_t size()
        InferRequest*& at(size_t index)
        InferRequest* front()
        void push_back(InferRequest* request)
        void push_front(InferRequest* request)
        void pop_front()

    cdef cppclass Lane "batchmill_lane":
        Shadow* shadow
        Waiting waiting

    void enter_idle_class "batchmill_idle_class"()
    void sleep_for "batchmill_sleep"(int64_t ns)
    void doze "batchmill_doze"(ShadowLine* line)
    void wake "batchmill_wake"(ShadowLine* line)
    void forget_lane "batchmill_forget_lane"(vector[Lane]& lanes, size_t index)

cdef int64_t LOOK_NS = 1000000          # between two looks for requests: they are not announced, for that costs callers' threads
cdef int LOOKS = 20                     # in vain, before it dozes and is to be woken
cdef int64_t KEPT_NS = 10000000000      # older ones tell of another time
cdef double RUN_NS = 20000000           # as long as a batch shall take at most
cdef size_t SKIPS = 64                  # requests of another shape that are passed over to fill a batch


# One request.
cdef void finish(ShadowLine* line, Shadow* shadow, InferRequest* request) noexcept nogil:
    """It goes to its next shadow, or home. After it the shadow may be gone, unless another request in hand holds it."""
    cdef Mirror* mirror = request.mirror.get()
    shadow.pending.fetch_sub(1)
    shadow.pending_bytes.fetch_sub(mirror.held_bytes)
    mirror.at += 1
    request.status.clear()
    shadow.let_go()
    if not enter(line, request):
        line.send_home(request)


cdef void drop(ShadowLine* line, Shadow* shadow, InferRequest* request) noexcept nogil:
    shadow.dropped.fetch_add(1)
    finish(line, shadow, request)


cdef void fail(ShadowLine* line, Shadow* shadow, InferRequest* request, const Status& status) noexcept nogil:
    count_error(shadow, status)
    finish(line, shadow, request)


# Lanes: one a shadow that has requests.
cdef Lane* lane_of(vector[Lane]& lanes, Shadow* shadow) noexcept nogil:
    cdef size_t index
    for index in range(lanes.size()):
        if lanes[index].shadow == shadow:
            return &lanes[index]
    lanes.resize(lanes.size() + 1)
    lanes.back().shadow = shadow
    return &lanes.back()


cdef void let_in(ShadowLine* line, vector[Lane]& lanes) noexcept nogil:
    """What has come, in the order it came, each request held against the candidate's own signature."""
    cdef InferRequest* request = line.inbox.take()
    cdef InferRequest* turned = NULL
    cdef InferRequest* following
    cdef Shadow* shadow
    cdef Status status
    while request != NULL:
        following = request.next
        request.next = turned
        turned = request
        request = following
    while turned != NULL:
        request = turned
        turned = request.next
        shadow = <Shadow*> request.mirror.get().shadows[request.mirror.get().at]
        if check(shadow.version, request):
            lane_of(lanes, shadow).waiting.push_back(request)
        else:
            status = request.status
            fail(line, shadow, request, status)


cdef void clear_lane(ShadowLine* line, Lane* lane, int64_t now) noexcept nogil:
    """Takes out what shall not run any more: all, or the oldest."""
    cdef bint pressed = line.pressed_until_ns.load() > now
    cdef InferRequest* request
    while lane.waiting.size():      # what waits holds the shadow
        request = lane.waiting.front()
        if not lane.shadow.active.load() or line.draining.load() or line.stopping.load():
            lane.shadow.dropped.fetch_add(1)
        elif pressed:
            lane.shadow.shed.fetch_add(1)
        elif now - request.mirror.get().since_ns > KEPT_NS:
            add(lane.shadow.expired, 1)
        else:
            return
        lane.waiting.pop_front()
        settle_back(lane.shadow, request)
        finish(line, lane.shadow, request)


cdef void clear_up(ShadowLine* line, vector[Lane]& lanes, int64_t now) noexcept nogil:
    cdef size_t index = 0
    while index < lanes.size():
        clear_lane(line, &lanes[index], now)
        if lanes[index].waiting.size():
            index += 1
        else:
            forget_lane(lanes, index)


cdef Lane* next_lane(vector[Lane]& lanes, int64_t now, int64_t* until) noexcept nogil:
    """That of the request which has waited longest among those that may run now; NULL: look again at `until`."""
    cdef Lane* found = NULL
    cdef size_t index
    until[0] = now + LOOK_NS
    for index in range(lanes.size()):
        if lanes[index].shadow.allowed_ns > now:
            continue
        if found == NULL or lanes[index].waiting.front().mirror.get().since_ns < found.waiting.front().mirror.get().since_ns:
            found = &lanes[index]
    return found


# Batches.
cdef int64_t rows_allowed(Lane* lane) noexcept nogil:
    """Of the next batch."""
    cdef ModelVersion* version = lane.shadow.version
    cdef BatchLimits limits
    cdef Estimate known = find(&version.times, width_of(lane.waiting.front().inputs, version.first_axis()))
    cdef int64_t rows = 0, most
    cdef int at
    cdef size_t index = 0
    limits.max_batch_size = version.max_batch_size.load()
    limits.max_queue_delay_ns = 0
    limits.draining = False
    for at in range(kPreferredSizes):
        limits.preferred[at] = version.preferred[at].load()
    while index < lane.waiting.size() and rows < limits.max_batch_size:
        rows += max(<int64_t> 1, lane.waiting.at(index).rows)
        index += 1
    most = max(<int64_t> 1, min(rows, most_rows(rows, limits, known)))
    return max(<int64_t> 1, fitting(most, known, RUN_NS)) if known.curve != NULL else most


cdef InferRequest* take_batch(Lane* lane, int64_t most, int64_t* rows, int64_t* count) noexcept nogil:
    """The first that waits, and those behind it that may run with it."""
    cdef InferRequest* batch = lane.waiting.front()
    cdef InferRequest* last = batch
    cdef InferRequest* request
    cdef Waiting skipped
    lane.waiting.pop_front()
    batch.next = NULL
    rows[0], count[0] = batch.rows, 1
    while lane.waiting.size() and rows[0] < most and skipped.size() < SKIPS:
        request = lane.waiting.front()
        lane.waiting.pop_front()
        if rows[0] + request.rows <= most and same_shape(batch, request):
            request.next = NULL
            last.next = request
            last = request
            rows[0] += request.rows
            count[0] += 1
        else:
            skipped.push_front(request)
    while skipped.size():
        lane.waiting.push_front(skipped.front())
        skipped.pop_front()
    return batch


cdef void run_next(ShadowLine* line, Lane* lane, Scratch* scratch) noexcept nogil:
    cdef Shadow* shadow = lane.shadow
    cdef InferRequest* request
    cdef InferRequest* following
    cdef int64_t rows, count, began = now_ns(), cpu = thread_ns()
    request = take_batch(lane, rows_allowed(lane), &rows, &count)
    run_batch(line, shadow, request, rows, count, scratch)
    cpu = thread_ns() - cpu
    add(shadow.cpu_ns, <uint64_t> cpu)
    if shadow.settings.max_cpu > 0:
        shadow.allowed_ns = began + <int64_t> (<double> cpu / shadow.settings.max_cpu)
    while request != NULL:
        following = request.next
        finish(line, shadow, request)
        request = following


cdef void* work(void* argument) noexcept nogil:
    cdef ShadowLine* line = <ShadowLine*> argument
    cdef Scratch* scratch = new Scratch(0)
    cdef vector[Lane] lanes
    cdef Lane* lane
    cdef int64_t now, until
    cdef int looks = 0
    enter_idle_class()
    while not line.stopping.load():
        now = now_ns()
        let_in(line, lanes)
        clear_up(line, lanes, now)
        looks = 0 if lanes.size() else looks + 1
        lane = next_lane(lanes, now, &until) if line.due.load() == 0 else NULL
        if lane != NULL:
            run_next(line, lane, scratch)
        elif looks < LOOKS:
            sleep_for(LOOK_NS)
        else:
            doze(line)
    let_in(line, lanes)
    clear_up(line, lanes, now_ns())
    del scratch
    return NULL


cdef bint start(ShadowLine* line) noexcept nogil:
    if line.started.load():
        return True
    line.options = new_run_options()
    if line.options == NULL or not start_thread(&line.thread, work, line, b"shadow", -1):
        return False
    line.started.store(True)
    return True


cdef void stop(ShadowLine* line) noexcept nogil:
    line.stopping.store(True)
    if not line.started.load():
        return
    wake(line)
    line.lock_run()
    if line.run_ends_cpu_ns:
        line.passed = True
        set_terminate(line.options, True)
    line.unlock_run()
    pthread_join(line.thread, NULL)
    line.started.store(False)
    delete_run_options(line.options)


cdef void drop_all(ShadowLine* line) noexcept nogil:
    cdef InferRequest* request = line.inbox.take()
    cdef InferRequest* following
    while request != NULL:
        following = request.next
        drop(line, <Shadow*> request.mirror.get().shadows[request.mirror.get().at], request)
        request = following

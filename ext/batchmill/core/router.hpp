// The versions that serve, and the immutable table that says who gets a request.
#pragma once
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "breaker.hpp"
#include "histogram.hpp"
#include "padding.hpp"
#include "predictor.hpp"
#include "queue.hpp"
#include "shadow.hpp"

namespace batchmill {

struct OrtModel;  // ort.hpp

constexpr int kMaxThreads = 128;       // data-plane threads that may record

// Where a version's batches run. kAuto: by their predicted run time.
enum class Place : int32_t { kAuto, kExecutor, kIoThread };

constexpr int32_t kNoFeedback = -3, kNoOutput = -2, kAnyOutput = -1;  // of Version::feedback; kNoOutput: tokens without a prediction

// How long a version's runs on I/O threads are: inline_runs.pyx.
struct InlineRuns {
    std::atomic<int64_t> again_ns{0};          // none until then
    std::atomic<int64_t> watched_until_ns{0};  // the thread's own time in them is taken until then
    std::atomic<int64_t> tried_ns{0};          // when one that seems too long was tried last
};

// Who makes batches fail, of late: culprits.pyx. Threads may overwrite each other's figures: they need not be exact.
struct Culprits {
    Relaxed<double> share{0};          // of rows
    Relaxed<double> cost{1};           // of a run that fails, by what one of its size takes that does not
    Relaxed<int64_t> small_rows{0};    // what fails only in large batches gets no more than that ...
    Relaxed<int64_t> small_until_ns{0};  // ... until then; 0: nothing does
    Relaxed<int64_t> most_rows{0};     // of a batch meanwhile; 0: as many as ever

    bool any() const { return share.load() > 0 || small_until_ns.load(); }
};

// One version of one model, while it serves. Owned by Python's Version object; requests hold leases.
struct Version {
    std::string name, version;
    uint64_t number = 0;               // the same as version
    OrtModel* model = nullptr;
    const std::vector<TensorSpec>* inputs = nullptr;
    const std::vector<TensorSpec>* outputs = nullptr;
    bool batched = false;              // axis 0 of all inputs and outputs is the batch
    std::unique_ptr<Padding> padding;   // null: only rows of equal shapes share runs; else the version is batched
    bool fast_ok = false;              // static non-batch axes: its run time can be known, so it may run on an I/O thread

    // Limits may change while it serves: each is read once where it counts, from the next batch or request on.
    std::atomic<int64_t> max_batch_size{64};      // rows
    std::atomic<int64_t> max_queue_delay_ns{0};
    std::atomic<int64_t> default_timeout_ns{0};
    std::atomic<int64_t> run_timeout_ns{0};       // a longer run is ended; 0: never
    std::atomic<int32_t> instances{1};            // batches of it that may run at once
    std::atomic<int32_t> preferred[kPreferredSizes] = {};  // batch sizes, ascending; 0: no more
    std::atomic<int64_t> max_wait_ns{0};          // predicted; a request that would wait longer is refused; 0: none
    std::atomic<int64_t> objective_ns{0};         // from its arrival, a request shall be answered by then; 0: none
    std::atomic<double> target{0.99};             // the share of the batches that shall be in time, of those that can be
    std::atomic<double> weight{1};                // its share of the executors beside others that have work
    std::atomic<Place> place{Place::kAuto};
    std::atomic<int32_t> feedback{kNoFeedback};   // or the place of the output whose prediction its answers' tokens carry, or kAnyOutput

    RequestQueue queue;                // and its max_rows
    Breaker breaker;
    std::atomic<int64_t> fallbacks{0}; // requests of its that were given to another, or are still to be
    std::atomic<int64_t> leases{0};
    RunTimes times;
    Relaxed<double> waited_ns{20e6}, predicted_ns{20e6};  // what requests waited of late, and were predicted to: decaying sums
    Relaxed<double> slack_share{1};               // of the time the most urgent has, what its batch may take
    Relaxed<int64_t> busy_until_ns{0};            // when the batch that was started last is expected to end
    InlineRuns inline_runs;
    Culprits culprits;
    std::atomic<bool> shrinks{false};                 // the runtime's arena, after the next run
    std::atomic<VersionStats*> stats[kMaxThreads] = {};
    std::vector<std::shared_ptr<Shadow>> shadows;     // as a candidate: the last is in force, if it is active. Touched by publish() and those who look on

    // Guarded by the executor pool's mutex.
    int32_t running = 0;
    double served_ns = 0;              // run time it has had, by its weight; never less than that of who was served last when it was idle
    int last_width = 0;                // of the last batch's rows
    bool due = false;                  // in the pool's list
    int64_t expected_rows = 0, last_ended_ns = 0;   // who may be there soon after the last batch: its callers and who waited then

    ~Version() {
        for (auto& one : stats) delete one.load();
    }
    // That counts for the width of a row; below 0: all rows are equally wide.
    int first_axis() const { return fast_ok ? -1 : batched ? 1 : 0; }
    // Whether requests are still to be run by it as a candidate.
    bool is_shadowing() const {
        for (auto& one : shadows)
            if (one->references.load()) return true;
        return false;
    }
    // How much longer than predicted requests waited, of late.
    double drift() const { return std::min(8.0, std::max(0.25, waited_ns.load() / predicted_ns.load())); }
    VersionStats* stats_of(int thread) {
        VersionStats* mine = stats[thread].load(std::memory_order_relaxed);
        if (!mine) stats[thread].store(mine = new VersionStats(), std::memory_order_release);
        return mine;
    }
};

using VersionPointer = Version*;

constexpr uint32_t kSlots = 10000;     // that keys are spread over

// A request whose header or parameter `name` is `value` goes to that version.
struct RouteRule {
    uint64_t header = 0;               // its key, as WatchedHeaders has it; 0: it is a parameter
    std::string name, value, number;
    Version* version = nullptr;        // null: it is not ready

    bool fits(const InferRequest* request) const {
        if (header) {
            const std::string* given = request->notes ? request->notes->watched_value(header) : nullptr;
            return given && *given == value;
        }
        const auto& texts = request->texts_given;  // the last of a name counts, as in protobuf and JSON
        auto given = std::find_if(texts.rbegin(), texts.rend(), [this](const auto& one) { return one.first == name; });
        return given != texts.rend() && given->second == value;
    }
};

struct RouteLabel {
    std::string name, number;
    Version* version = nullptr;        // null: not ready
};

// The slots from the end of the share before it up to `end` are the version's.
struct RouteShare {
    uint32_t end = 0;
    Version* version = nullptr;
};

// So many of kSlots of the requests that the model's route serves are run by its version, too.
struct RouteShadow {
    uint32_t share = 0;
    Shadow* shadow = nullptr;
};

// An output that is answered as it is, whatever was asked: of one row, where the version's rows share batches.
struct ConstantOutput {
    std::string name, raw;
    DataType dtype = DataType::kInvalid;
    Shape shape;
};

// Who answers what a version does not: another version, another model, or nobody: what is constant. on: by what went wrong.
constexpr uint32_t kOnError = 1, kOnInvalid = 2, kOnUnavailable = 4;

struct FallbackStep {
    uint32_t on = 0;
    Version* version = nullptr;        // null: of the other model, or it is not ready
    std::string model;                 // the other one; empty: it is this model's version
    std::vector<ConstantOutput> constant;  // not empty: this is the answer
    std::string told;                  // what the answer says: printable ASCII without quotes and backslashes
};

struct ModelRoute {
    std::string name;
    std::vector<std::pair<std::string, Version*>> versions;
    std::vector<RouteLabel> labels;
    Version* standard = nullptr;       // who gets a request that names no version, where neither rule nor share says
    std::vector<RouteRule> rules;      // the first that fits
    std::vector<RouteShare> shares;    // ascending, the last ends at kSlots; empty: there are none
    std::vector<RouteShadow> shadows;  // Mirror::kShadows at most
    std::vector<FallbackStep> fallbacks;   // in the order in which they are tried
    uint64_t seed = 0;                 // of its keys' slots
    uint32_t generation = 0;           // one more with each change of it

    // FNV-1a, mixed by MurmurHash3's finaliser, so that all bits count; rollout/split.py computes the same.
    static uint64_t fnv(uint64_t value, std::string_view text) {
        for (char byte : text) value = (value ^ static_cast<unsigned char>(byte)) * 0x100000001B3u;
        return value;
    }
    static uint64_t mixed(uint64_t value) {
        value = (value ^ value >> 33) * 0xFF51AFD7ED558CCDu;
        value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53u;
        return value ^ value >> 33;
    }
    void set_seed() { seed = fnv(fnv(0xCBF29CE484222325u, name), std::string_view("", 1)); }
    // Each time another number, of a sequence a thread (SplitMix64).
    static uint64_t drawn() {
        thread_local uint64_t state = mixed(reinterpret_cast<uintptr_t>(&state) ^ static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()));
        return mixed(state += 0x9E3779B97F4A7C15u);
    }
    // The first of them; null: none fits.
    const RouteRule* fitting_rule(const InferRequest* request) const {
        for (const RouteRule& one : rules)
            if (one.fits(request)) return &one;
        return nullptr;
    }
    static uint32_t slot_of(uint64_t hash) { return static_cast<uint32_t>((hash >> 32) * kSlots >> 32); }
    Version* share_of(std::string_view key) const {
        uint32_t slot = slot_of(key.empty() ? drawn() : mixed(fnv(seed, key)));
        for (const RouteShare& one : shares)
            if (slot < one.end) return one.version;
        return standard;
    }
    // Each is drawn by itself, and not by the key: of each key the same share is mirrored.
    void draw_shadows(InferRequest* request) const {
        for (const RouteShadow& one : shadows) {
            if (one.shadow->version == request->version || slot_of(drawn()) >= one.share) continue;
            one.shadow->references.fetch_add(1, std::memory_order_relaxed);
            request->mirror_to(one.shadow);
        }
    }
};

// Immutable once published.
struct RouteTable {
    std::vector<std::unique_ptr<ModelRoute>> routes;
    std::unordered_map<std::string_view, const ModelRoute*> models;
    WatchedHeaders watched;
    bool complete = true;  // false while the server starts: what is not here may still come

    void insert(ModelRoute* route) {
        routes.emplace_back(route);
        models[route->name] = route;
    }
    const ModelRoute* find(std::string_view name) const {
        auto found = models.find(name);
        return found == models.end() ? nullptr : found->second;
    }
};

}  // namespace batchmill

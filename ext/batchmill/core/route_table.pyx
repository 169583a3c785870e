"""What the control plane says of each model's route, as the data plane's table."""

from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.utility cimport pair

from batchmill.core.message cimport kMostShadows
from batchmill.core.notes cimport header_key
from batchmill.core.router cimport (
    ConstantOutput, FallbackStep, ModelRoute, RouteLabel, RouteRule, RouteShadow, RouteShare, Version, VersionPointer,
    kOnError, kOnInvalid, kOnUnavailable,
)
from batchmill.core.shadow_figures cimport shadow_in_force
from batchmill.core.tensor cimport datatype_of


cdef class RouteEntry:
    """A model's entry of the route table: who answers what.

    versions: those that are ready. standard: who gets what names no version, where neither rule nor share says; None: nobody.
    labels: version numbers. shares: (end slot, version number), ascending. rules: (of_header, name, value, version number).
    shadows: (version number, share of 10,000, epoch: another begins anew, settings). generation: one more with each change of the route.
    fallbacks: (failures that it is for, version number or "", other model or "", outputs, what is told),
    outputs: (name, datatype, shape, raw), none: they are not constant.
    """

    def __init__(self, str name, versions, standard, labels=None, *, shares=(), rules=(), shadows=(), generation=0, fallbacks=()):
        self.name, self.versions, self.standard, self.labels = name, versions, standard, labels or {}
        self.shares, self.rules, self.shadows, self.generation, self.fallbacks = shares, rules, shadows, generation, fallbacks


cdef add_versions(ModelRoute* route, RouteEntry entry, dict versions):
    cdef pair[string, VersionPointer] named
    cdef RouteLabel label
    cdef Version version
    for version in entry.versions:
        named.first, named.second = version.native.version, version.native
        route.versions.push_back(named)
    for name, number in entry.labels.items():
        version = versions.get(number)
        label.name, label.number = name.encode(), number.encode()
        label.version = version.native if version is not None else NULL
        route.labels.push_back(label)
    if entry.standard is not None:
        version = entry.standard
        route.standard = version.native


# versions: those that are ready, by number.
cdef add_shares(ModelRoute* route, dict versions, shares):
    cdef RouteShare share
    cdef Version version
    for end, number in shares:
        version = versions[number]
        share.end, share.version = end, version.native
        route.shares.push_back(share)


cdef add_rules(ModelRoute* route, dict versions, rules):
    cdef RouteRule rule
    cdef Version version
    for of_header, name, value, number in rules:
        version = versions.get(number)
        rule.name, rule.value, rule.number = name.encode(), value.encode(), number.encode()
        rule.header = header_key(string_view(rule.name.data(), rule.name.size())) if of_header else 0
        rule.version = version.native if version is not None else NULL
        route.rules.push_back(rule)


cdef add_shadows(ModelRoute* route, dict versions, shadows, dict epochs):
    cdef RouteShadow one
    cdef Version version
    for number, share, epoch, settings in shadows[:kMostShadows]:
        version = versions.get(number)
        if version is not None:
            one.share, one.shadow = share, shadow_in_force(version, epoch, settings)
            route.shadows.push_back(one)
            epochs[version] = epoch


cdef add_fallbacks(ModelRoute* route, dict versions, fallbacks):
    cdef FallbackStep step
    cdef ConstantOutput output
    cdef Version version
    cdef bytes datatype
    cdef int axis
    for on, number, model, constant, told in fallbacks:
        version = versions.get(number)
        step.on, step.model, step.told = 0, model.encode(), told.encode()
        for kind in on:
            step.on |= {"error": kOnError, "invalid": kOnInvalid, "unavailable": kOnUnavailable}[kind]
        step.version = version.native if version is not None else NULL
        step.constant.clear()
        for name, datatype, shape, raw in constant:
            output.name, output.raw, output.dtype = name, raw, datatype_of(string_view(<const char*> datatype, len(datatype)))
            output.shape.rank = len(shape)
            for axis in range(len(shape)):
                output.shape.dims[axis] = shape[axis]
            step.constant.push_back(output)
        route.fallbacks.push_back(step)


cdef RouteTable* new_table(entries, bint complete, set versions, dict epochs) except NULL:
    cdef unique_ptr[RouteTable] table = unique_ptr[RouteTable](new RouteTable())
    cdef ModelRoute* route
    cdef RouteEntry entry
    watched = set()
    table.get().complete = complete
    for entry in entries:
        route = new ModelRoute()
        route.name, route.generation = entry.name.encode(), entry.generation
        route.set_seed()
        table.get().insert(route)
        versions.update(entry.versions)
        by_number = {version.version: version for version in entry.versions}
        add_versions(route, entry, by_number)
        add_shares(route, by_number, entry.shares)
        add_rules(route, by_number, entry.rules)
        add_shadows(route, by_number, entry.shadows, epochs)
        add_fallbacks(route, by_number, entry.fallbacks)
        watched.update(name.encode() for of_header, name, *_ in entry.rules if of_header)
    for name in sorted(watched):
        table.get().watched.add(name)
    return table.release()

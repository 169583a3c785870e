# What the control plane says of each model's route, as the data plane's table.
from batchmill.core.router cimport RouteTable


cdef class RouteEntry:
    cdef readonly str name
    cdef readonly object versions, standard, labels, shares, rules, shadows, generation, fallbacks

# versions: a set that gets all of the entries' versions. epochs: a dict that gets the epoch of each that is a candidate.
cdef RouteTable* new_table(entries, bint complete, set versions, dict epochs) except NULL

# What a scrape tells of versions (exposition.hpp).
from libcpp.vector cimport vector

from batchmill.core.router cimport VersionPointer


cdef bytes text_of(const vector[VersionPointer]& versions, bint triton)

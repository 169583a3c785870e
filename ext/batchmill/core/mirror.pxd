# Keeps a request that was answered for candidates that shall answer it, too.
from libc.stdint cimport int64_t

from batchmill.core.message cimport InferRequest
from batchmill.core.padding cimport Padding
from batchmill.core.router cimport ModelVersion, ShadowLine
from batchmill.core.tensor cimport MemoryBudget, TensorView

# What a mirrored request was answered: views into the written answer where the bytes stand there raw, else copies.
cdef void keep_answer(InferRequest* request, const TensorView* outputs, size_t count) noexcept nogil

# Holds an answered request against what its wait should have been: where callers wait, shadows go.
cdef void look_for_pressure(ShadowLine* line, const InferRequest* request, ModelVersion* version, int64_t now) noexcept nogil

# Of a mirrored request that its front end has done with. False: it is free; True: it belongs to the line, and comes home later.
cdef bint hand_in(ShadowLine* line, InferRequest* request, ModelVersion* version, const MemoryBudget& budget, int64_t now) noexcept nogil

# To the next of its shadows that has room for it. False: there is none any more.
cdef bint enter(ShadowLine* line, InferRequest* request) noexcept nogil

# Gives the shapes the lengths that the version's padding has put its buckets in the place of.
cdef void unsettle(const Padding* padding, InferRequest* request) noexcept nogil

# gzip and deflate, of requests and of answers, by zlib.
from libc.stdint cimport int64_t, uint8_t

from batchmill.core.message cimport InferRequest
from batchmill.core.notes cimport Coding
from batchmill.core.status cimport Status
from batchmill.core.tensor cimport Buffer, MemoryBudget

# Decompresses into out, at most limit bytes, each of which counts against the budget. False: status says why.
cdef bint decompress(const uint8_t* data, size_t size, Coding coding, size_t limit, MemoryBudget* budget, int64_t* charged,
                     Buffer* out, Status* status) noexcept nogil

# Puts the plain body in the place of the compressed one. False: request.status says why.
cdef bint decompress_body(InferRequest* request, size_t limit, MemoryBudget* budget) noexcept nogil

# Compresses the answer as request.answer_coding says, or sets that to identity when it would not become smaller.
cdef void compress_answer(InferRequest* request) noexcept nogil

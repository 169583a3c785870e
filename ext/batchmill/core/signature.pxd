# Whether a request is what its version takes.
from batchmill.core.message cimport InferRequest
from batchmill.core.router cimport ModelVersion

# Sorts the request's inputs into the signature's order and sets its rows. False: request.status says what is wrong.
cdef bint check(ModelVersion* version, InferRequest* request) noexcept nogil

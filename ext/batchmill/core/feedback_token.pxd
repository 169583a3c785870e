# What an answer is known by when its ground truth comes.
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.string_view cimport string_view

from batchmill.core.message cimport kTokenChars
from batchmill.core.tensor cimport TensorView

cdef extern from "feedback_token.hpp" namespace "batchmill" nogil:
    uint32_t kNoPrediction

    cdef cppclass FeedbackToken:
        uint64_t version
        uint32_t generation, made_s, prediction
        uint64_t nonce

# The class that an output of one row says: the place of its greatest number, or the integer itself. kNoPrediction: it says none.
cdef uint32_t prediction_of(const TensorView* output) noexcept nogil

# Writes kTokenChars to target: a token of now.
cdef void make_token(string_view model, FeedbackToken token, char* target) noexcept nogil

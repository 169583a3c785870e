"""What is fuzzed, by name.

A target has seeds(), WORDS that its grammar knows, check(data), which fails where data is misread, and perhaps mutate().
"""

from fuzz import binary_request, compressed_body, http1_connection, http2_connection, json_request, protobuf_request

TARGETS = {"protobuf": protobuf_request, "json": json_request, "binary": binary_request, "http1": http1_connection, "http2": http2_connection,
           "compressed": compressed_body}

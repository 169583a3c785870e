"""The data plane: Cython in C++17, from the bytes of a socket to ONNX Runtime and back without the GIL."""

"""batchmill serves ONNX models over gRPC and HTTP from one process."""

__version__ = "0.1.0"

"""A small client of v2 model servers: numpy arrays in, numpy arrays out, over HTTP with binary tensors."""

from batchmill_client.client import Client
from batchmill_client.errors import BadAnswer, ClientError, Refused, Unreachable

__all__ = ["BadAnswer", "Client", "ClientError", "Refused", "Unreachable"]

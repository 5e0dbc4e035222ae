"""Any ``MessagePassing`` of PyG on packed rows."""

from nodebits.nn.propagate.layer import QuantMessagePassing

__all__ = ["QuantMessagePassing"]

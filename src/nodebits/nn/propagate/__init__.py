"""Any ``MessagePassing`` of PyG on packed rows."""

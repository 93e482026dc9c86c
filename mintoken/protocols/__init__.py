"""Wire protocols: one per file, each a `base.WireProtocol`."""

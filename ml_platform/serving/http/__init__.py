"""HTTP: messages, limits of connections, compression, and the fast path of the protocol."""

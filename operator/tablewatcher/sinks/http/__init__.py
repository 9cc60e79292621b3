"""The HTTP sink. The client library enters deliveries through `pool`, `connection` and `guard` only."""

"""The HTTP sink. The client library enters deliveries through `pool` and `guard` only."""

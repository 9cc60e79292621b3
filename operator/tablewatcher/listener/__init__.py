"""The listener: `retry` and `delivery` decide, `relay` runs them on an outbox and a sink, `service` is the process."""

"""Sinks: where events go.

`base` says what a sink must do. Each kind has a package of its own, `http` and `nats`, which never import each other;
`kinds` makes the one that a manifest asks for.
"""

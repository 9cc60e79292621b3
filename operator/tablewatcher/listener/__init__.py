"""The listener: `decide` says what comes next, `relay` does it for one watcher, `watch` and `service` keep it going.

Read `service` (the process), `watch` (one watcher, from connection to fault and again), then `relay.relay`.
"""

"""The listener: `decide` says what comes next, `relay` does it for one watcher, `watch` and `service` keep it going."""

"""The listener: `decide` says what comes next, `reading`, `sending` and `keeping` act, `relay` runs them side by side,
`service` is the process.
"""

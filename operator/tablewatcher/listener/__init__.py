"""The listener: `retry` and `delivery` decide, `reading`, `sending` and `keeping` act, `relay` runs them side by side,
`service` is the process.
"""

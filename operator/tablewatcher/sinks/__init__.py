"""Sinks: where events go. Each kind has one module; they never meet."""

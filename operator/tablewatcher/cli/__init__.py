"""The command line. Commands are thin: they read files, call the same functions as the operator, and print."""

from __future__ import annotations

from .app import app, main

__all__ = ["app", "main"]

"""`python -m tablewatcher.controller`, the same as `tablewatcher-operator`."""

from __future__ import annotations

from . import main

main()

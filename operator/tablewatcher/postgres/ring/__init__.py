"""The ring: what a watcher's changes wait in. How it lies in tables, how it is read, how far it is delivered, its
upkeep.

Read `chunks` and `parts` (what lies there), `snapshot` and `outbox` (the reader), `cursor_log` (how far it is
delivered, and whose it is to deliver), `upkeep` (its turning and its size).
"""

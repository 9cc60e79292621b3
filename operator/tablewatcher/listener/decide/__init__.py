"""What a listener does next, decided apart from doing it. Pure: no event loop, and the time is an argument.

Read `delivery` (the state machine), then its parts: `backlog` (what is read and waits), `lanes` (the order of each
key), `blame` (whose fault a failure is), `pages` (how far it has come).
"""

"""One watcher's relay from ring to sink: `reading`, `sending` and `keeping` act on what `flow` holds, `relay` runs all.

What is put aside (`aside`) and what people ask for (`requesting`, `bringing`, `replaying`) goes the same way.
"""

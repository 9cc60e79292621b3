-- One watcher's ring. Three insert-only tables, written one after the other and emptied by TRUNCATE, so that a
-- transaction somebody holds open makes nothing of ours grow but the ring itself. The cursor tables turn with it:
-- every row is one commit of the cursor and one proof of the lease, the newest by (epoch, n) counts.
-- Of the ids one is drawn a row; a row of many events takes those up to the next as well. They begin with the clock, in
-- nanoseconds, so that those of a watcher that was removed and is made again are above all that it had before. In
-- whole rounds of the looks at the bound: the first row takes one, and then each 1,024th.
-- Sequences carry what every write must read: they have no row versions and are seen at once.
CREATE SEQUENCE tablewatcher.ids_{hash} AS bigint INCREMENT BY {ids_a_row} CACHE 1;
CREATE SEQUENCE tablewatcher.slot_{hash} AS bigint MINVALUE 0;
CREATE SEQUENCE tablewatcher.wake_{hash} AS bigint MINVALUE 0;
CREATE SEQUENCE tablewatcher.stop_{hash} AS bigint MINVALUE 0;
SELECT pg_catalog.setval('tablewatcher.slot_{hash}', 0);
SELECT pg_catalog.setval('tablewatcher.wake_{hash}', 0);
SELECT pg_catalog.setval('tablewatcher.stop_{hash}', 0);
SELECT pg_catalog.setval('tablewatcher.ids_{hash}',
    (extract(epoch FROM pg_catalog.clock_timestamp())::numeric * 1000000000)::bigint
        / (1024 * {ids_a_row}) * (1024 * {ids_a_row}) + 1, false);
COMMENT ON SEQUENCE tablewatcher.ids_{hash} IS {identity};
COMMENT ON SEQUENCE tablewatcher.slot_{hash} IS {identity};
COMMENT ON SEQUENCE tablewatcher.wake_{hash} IS {identity};
COMMENT ON SEQUENCE tablewatcher.stop_{hash} IS {identity};

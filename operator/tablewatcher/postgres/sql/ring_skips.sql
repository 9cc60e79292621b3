-- How many changes were not captured because their transaction said so: the sequence's value, never read by writers.
CREATE SEQUENCE tablewatcher.skips_{hash} AS bigint MINVALUE 0;
COMMENT ON SEQUENCE tablewatcher.skips_{hash} IS {identity};
SELECT pg_catalog.setval('tablewatcher.skips_{hash}', 0);

-- What `lastval()` gives after an insert: the function draws of it last, and sets it to the number that the application
-- drew for the row. Nobody reads it by name. It never ends, and whoever writes may ask, who has no rights on the schema.
CREATE SEQUENCE tablewatcher.lastval_{hash} AS bigint MINVALUE -9223372036854775808 CYCLE;
COMMENT ON SEQUENCE tablewatcher.lastval_{hash} IS {identity};
GRANT SELECT ON SEQUENCE tablewatcher.lastval_{hash} TO PUBLIC;

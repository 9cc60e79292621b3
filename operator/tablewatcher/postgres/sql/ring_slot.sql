-- One slot of a watcher's ring.
CREATE TABLE tablewatcher.ring_{hash}_{slot} (
    id bigint NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    op "char" NOT NULL,
    key text[] NOT NULL,
    old_key text[],
    data text NOT NULL,
    context text,
    traceparent text,
    routing text[],
    taken_at timestamptz,
    bodies text[]
) USING heap;
-- Adopting a watcher takes rows away, which a publication of all tables forbids where rows have nothing to be known by.
ALTER TABLE tablewatcher.ring_{hash}_{slot} REPLICA IDENTITY FULL;
CREATE INDEX ring_{hash}_{slot}_xid ON tablewatcher.ring_{hash}_{slot} (xid);
CREATE TABLE tablewatcher.cursor_{hash}_{slot} (
    epoch bigint NOT NULL,
    n bigint NOT NULL,
    holder text NOT NULL,
    expires_at timestamptz NOT NULL,
    prev pg_snapshot NOT NULL,
    cur pg_snapshot,
    after_id bigint NOT NULL,
    PRIMARY KEY (epoch, n)
) USING heap;
COMMENT ON TABLE tablewatcher.ring_{hash}_{slot} IS {identity};
COMMENT ON TABLE tablewatcher.cursor_{hash}_{slot} IS {identity};

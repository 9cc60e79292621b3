-- Where a watcher was made, so that a copy of its database is told from the database itself, and a failover from a
-- restart; and which source its function was installed with, so that one replaced by hand is told from an old one.
ALTER TABLE tablewatcher.watcher
    ADD COLUMN system_identifier text,
    ADD COLUMN database_oid oid,
    ADD COLUMN timeline bigint,
    ADD COLUMN source_digest text;

-- Gaps that are over and not announced yet: transactions that ran without capture have not ended. `horizon`: those
-- below it are waited for; NULL until a listener has looked. `told`: once already, as open, because the wait is long.
-- Rows are few and short-lived.
CREATE TABLE tablewatcher.gap (
    hash text NOT NULL REFERENCES tablewatcher.watcher ON DELETE CASCADE,
    reason text NOT NULL,
    certain boolean NOT NULL,
    since timestamptz,
    until timestamptz NOT NULL DEFAULT clock_timestamp(),
    horizon xid8,
    told boolean NOT NULL DEFAULT false,
    PRIMARY KEY (hash, reason)
) USING heap;

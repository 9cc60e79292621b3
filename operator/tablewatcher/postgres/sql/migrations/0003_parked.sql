-- Events put aside as undeliverable, and the later events of their keys, with all that is needed to send them: their
-- rows of the ring are gone sooner or later. `n` is the order in which they are sent; `attempts` is 0 for one that only
-- follows. `data` is the event's data, as it was read.
CREATE TABLE tablewatcher.parked (
    n bigint GENERATED ALWAYS AS IDENTITY,
    hash text NOT NULL REFERENCES tablewatcher.watcher ON DELETE CASCADE,
    ring_id bigint NOT NULL,
    event_id text NOT NULL,
    op text NOT NULL,
    key text NOT NULL,
    old_key text,
    time text NOT NULL,
    captured_at double precision NOT NULL,
    sequence text NOT NULL,
    traceparent text,
    data text NOT NULL,
    routing text[],
    attempts integer NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- After a failover that lost rows an id may come again: the event's own id tells the two apart.
    PRIMARY KEY (hash, ring_id, event_id)
) USING heap;
CREATE INDEX parked_n ON tablewatcher.parked (hash, n);
CREATE INDEX parked_key ON tablewatcher.parked (hash, key, n);
CREATE INDEX parked_old_key ON tablewatcher.parked (hash, old_key, n) WHERE old_key IS NOT NULL;

-- What a person asks the active listener to send again or to drop. `id` is the number of the replay; `state` is one of
-- asked, running, done, failed. keys: of `parked` events, those to send, once it is known.
CREATE TABLE tablewatcher.request (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash text NOT NULL REFERENCES tablewatcher.watcher ON DELETE CASCADE,
    kind text NOT NULL,
    since timestamptz,
    key text,
    event_id text,
    keys text[],
    state text NOT NULL DEFAULT 'asked',
    total bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    message text NOT NULL DEFAULT '',
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp()
) USING heap WITH (fillfactor = 50);

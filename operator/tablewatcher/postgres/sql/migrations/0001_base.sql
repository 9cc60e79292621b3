-- What all watchers of a database share: who they are, how far their listeners are, and one function.

CREATE TABLE tablewatcher.migration (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
) USING heap;

-- One row a watcher. Written at install and removal only.
CREATE TABLE tablewatcher.watcher (
    hash text PRIMARY KEY,
    identity text NOT NULL UNIQUE,
    table_oid oid NOT NULL,
    generation integer NOT NULL DEFAULT 1,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp()
) USING heap;

-- What a listener says of itself, for the operator and for `status`. Written when its content changes, never
-- as a heartbeat: a row updated every second would bloat while somebody holds a transaction open.
CREATE TABLE tablewatcher.progress (
    hash text PRIMARY KEY,
    epoch bigint NOT NULL,
    holder text NOT NULL,
    spec_generation bigint NOT NULL,
    forwarding boolean NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
) USING heap WITH (fillfactor = 50);

-- A key as one subject token: ASCII letters, digits, `_` and `-` stay, every other UTF-8 byte becomes %XX,
-- null or empty is `_`, parts are joined by `,`. The same as naming.key_token.
CREATE FUNCTION tablewatcher.token(parts text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(
        CASE
            WHEN part IS NULL OR part = '' THEN '_'
            WHEN part COLLATE "C" ~ '^[A-Za-z0-9_-]+$' THEN part
            ELSE (
                SELECT string_agg(
                    CASE
                        WHEN byte BETWEEN 48 AND 57 OR byte BETWEEN 65 AND 90 OR byte BETWEEN 97 AND 122
                             OR byte IN (45, 95) THEN chr(byte)
                        ELSE '%' || upper(lpad(to_hex(byte), 2, '0'))
                    END, '' ORDER BY at)
                FROM (
                    SELECT at, get_byte(convert_to(part, 'UTF8'), at) AS byte
                    FROM generate_series(0, length(convert_to(part, 'UTF8')) - 1) AS at
                ) AS bytes
            )
        END, ',' ORDER BY nth)
    FROM unnest(parts) WITH ORDINALITY AS given (part, nth)
$$;

REVOKE ALL ON FUNCTION tablewatcher.token(text[]) FROM PUBLIC;

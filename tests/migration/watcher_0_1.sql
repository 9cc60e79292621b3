-- A watcher as version 0.1 made it in its first form: schema, ring, function, trigger. Kept as it was.

CREATE SCHEMA tablewatcher;

COMMENT ON SCHEMA tablewatcher IS 'made by tablewatcher; removed with the last watcher';

-- What all watchers of a database share: who they are, how far their listeners are, and one function.

CREATE TABLE tablewatcher.migration (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row a watcher. Written at install and removal only.
CREATE TABLE tablewatcher.watcher (
    hash text PRIMARY KEY,
    identity text NOT NULL UNIQUE,
    table_oid oid NOT NULL,
    generation integer NOT NULL DEFAULT 1,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

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
) WITH (fillfactor = 50);

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

INSERT INTO tablewatcher.migration (version) VALUES (1);

-- One watcher's ring. Three insert-only tables, written one after the other and emptied by TRUNCATE, so that a
-- transaction somebody holds open makes nothing of ours grow but the ring itself. The cursor tables turn with it:
-- every row is one commit of the cursor and one proof of the lease, the newest by (epoch, n) counts.
-- Sequences carry what every write must read: they have no row versions and are seen at once.
CREATE SEQUENCE tablewatcher.ids_1ba751af162b991e AS bigint CACHE 1;
CREATE SEQUENCE tablewatcher.slot_1ba751af162b991e AS bigint MINVALUE 0;
CREATE SEQUENCE tablewatcher.wake_1ba751af162b991e AS bigint MINVALUE 0;
CREATE SEQUENCE tablewatcher.stop_1ba751af162b991e AS bigint MINVALUE 0;
SELECT pg_catalog.setval('tablewatcher.slot_1ba751af162b991e', 0), pg_catalog.setval('tablewatcher.wake_1ba751af162b991e', 0),
       pg_catalog.setval('tablewatcher.stop_1ba751af162b991e', 0);
COMMENT ON SEQUENCE tablewatcher.ids_1ba751af162b991e IS 'test/shop/w';
COMMENT ON SEQUENCE tablewatcher.slot_1ba751af162b991e IS 'test/shop/w';
COMMENT ON SEQUENCE tablewatcher.wake_1ba751af162b991e IS 'test/shop/w';
COMMENT ON SEQUENCE tablewatcher.stop_1ba751af162b991e IS 'test/shop/w';

-- One slot of a watcher's ring.
CREATE TABLE tablewatcher.ring_1ba751af162b991e_0 (
    id bigint NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    op "char" NOT NULL,
    key text[] NOT NULL,
    old_key text[],
    data text NOT NULL,
    context text,
    traceparent text
);
CREATE INDEX ring_1ba751af162b991e_0_xid ON tablewatcher.ring_1ba751af162b991e_0 (xid);
CREATE TABLE tablewatcher.cursor_1ba751af162b991e_0 (
    epoch bigint NOT NULL,
    n bigint NOT NULL,
    holder text NOT NULL,
    expires_at timestamptz NOT NULL,
    prev pg_snapshot NOT NULL,
    cur pg_snapshot,
    after_id bigint NOT NULL,
    PRIMARY KEY (epoch, n)
);
COMMENT ON TABLE tablewatcher.ring_1ba751af162b991e_0 IS 'test/shop/w';
COMMENT ON TABLE tablewatcher.cursor_1ba751af162b991e_0 IS 'test/shop/w';

-- One slot of a watcher's ring.
CREATE TABLE tablewatcher.ring_1ba751af162b991e_1 (
    id bigint NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    op "char" NOT NULL,
    key text[] NOT NULL,
    old_key text[],
    data text NOT NULL,
    context text,
    traceparent text
);
CREATE INDEX ring_1ba751af162b991e_1_xid ON tablewatcher.ring_1ba751af162b991e_1 (xid);
CREATE TABLE tablewatcher.cursor_1ba751af162b991e_1 (
    epoch bigint NOT NULL,
    n bigint NOT NULL,
    holder text NOT NULL,
    expires_at timestamptz NOT NULL,
    prev pg_snapshot NOT NULL,
    cur pg_snapshot,
    after_id bigint NOT NULL,
    PRIMARY KEY (epoch, n)
);
COMMENT ON TABLE tablewatcher.ring_1ba751af162b991e_1 IS 'test/shop/w';
COMMENT ON TABLE tablewatcher.cursor_1ba751af162b991e_1 IS 'test/shop/w';

-- One slot of a watcher's ring.
CREATE TABLE tablewatcher.ring_1ba751af162b991e_2 (
    id bigint NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    op "char" NOT NULL,
    key text[] NOT NULL,
    old_key text[],
    data text NOT NULL,
    context text,
    traceparent text
);
CREATE INDEX ring_1ba751af162b991e_2_xid ON tablewatcher.ring_1ba751af162b991e_2 (xid);
CREATE TABLE tablewatcher.cursor_1ba751af162b991e_2 (
    epoch bigint NOT NULL,
    n bigint NOT NULL,
    holder text NOT NULL,
    expires_at timestamptz NOT NULL,
    prev pg_snapshot NOT NULL,
    cur pg_snapshot,
    after_id bigint NOT NULL,
    PRIMARY KEY (epoch, n)
);
COMMENT ON TABLE tablewatcher.ring_1ba751af162b991e_2 IS 'test/shop/w';
COMMENT ON TABLE tablewatcher.cursor_1ba751af162b991e_2 IS 'test/shop/w';

INSERT INTO tablewatcher.cursor_1ba751af162b991e_0 (epoch, n, holder, expires_at, prev, after_id)
    VALUES (0, 0, '', '-infinity', pg_catalog.pg_current_snapshot(), 0);

CREATE OR REPLACE FUNCTION tablewatcher.capture_1ba751af162b991e()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$DECLARE
  slot bigint; wake bigint; ring_id bigint;
  operation "char" := CASE TG_OP WHEN 'INSERT' THEN 'i' WHEN 'UPDATE' THEN 'u' ELSE 'd' END;
  key_parts text[]; old_key_parts text[]; key_json text; row_json text; before_json text; changed text; body text; context text; traceparent text;
  n jsonb; o jsonb;
BEGIN
  IF pg_sequence_last_value('tablewatcher.stop_1ba751af162b991e'::regclass) > 0 THEN RETURN NULL; END IF;
  BEGIN
    IF TG_OP = 'INSERT' THEN
      key_parts := ARRAY[NEW."id"::text]; key_json := '{' || '"id":' || coalesce(to_json(NEW."id")::text, 'null') || '}';
      body := '"key":' || key_json || ',"after":' || '{' || '"id":' || coalesce(to_json(NEW."id")::text, 'null') || ',"status":' || coalesce(to_json(NEW."status")::text, 'null') || ',"total":' || coalesce(to_json(NEW."total")::text, 'null') || '}';
    ELSIF TG_OP = 'DELETE' THEN
      key_parts := ARRAY[OLD."id"::text]; key_json := '{' || '"id":' || coalesce(to_json(OLD."id")::text, 'null') || '}';
      body := '"key":' || key_json || ',"before":' || '{' || '"id":' || coalesce(to_json(OLD."id")::text, 'null') || '}';
    ELSE
      IF row(OLD."id")::record *= row(NEW."id")::record AND row(OLD."customer_id")::record *= row(NEW."customer_id")::record AND row(OLD."total")::record *= row(NEW."total")::record AND row(OLD."status")::record *= row(NEW."status")::record AND row(OLD."note")::record *= row(NEW."note")::record AND OLD *= NEW THEN RETURN NULL; END IF;
      key_parts := ARRAY[NEW."id"::text]; key_json := '{' || '"id":' || coalesce(to_json(NEW."id")::text, 'null') || '}';
      IF NOT (row(OLD."id")::record *= row(NEW."id")::record) THEN old_key_parts := ARRAY[OLD."id"::text]; END IF;
      body := '"key":' || key_json || ',"after":' || '{' || '"id":' || coalesce(to_json(NEW."id")::text, 'null') || ',"status":' || coalesce(to_json(NEW."status")::text, 'null') || ',"total":' || coalesce(to_json(NEW."total")::text, 'null') || '}';
      IF false OR old_key_parts IS NOT NULL THEN body := body || ',"before":' || '{' || '"id":' || coalesce(to_json(OLD."id")::text, 'null') || '}'; END IF;
      body := body || ',"changed":' || '[' || array_to_string(ARRAY[CASE WHEN NOT (row(OLD."id")::record *= row(NEW."id")::record) THEN '"id"' END, CASE WHEN NOT (row(OLD."status")::record *= row(NEW."status")::record) THEN '"status"' END, CASE WHEN NOT (row(OLD."total")::record *= row(NEW."total")::record) THEN '"total"' END]::text[], ',') || ']';
    END IF;
  EXCEPTION WHEN OTHERS THEN
    body := NULL;
  END;
  IF body IS NULL THEN
    -- The key as the fast form writes it, so that the row keeps its lane whichever form a session is left with.
    BEGIN
      old_key_parts := NULL;
      IF TG_OP = 'DELETE' THEN
        key_parts := ARRAY[OLD."id"::text]; key_json := '{' || '"id":' || coalesce(to_json(OLD."id")::text, 'null') || '}';
      ELSE
        key_parts := ARRAY[NEW."id"::text]; key_json := '{' || '"id":' || coalesce(to_json(NEW."id")::text, 'null') || '}';
        IF TG_OP = 'UPDATE' THEN
          IF NOT (row(OLD."id")::record *= row(NEW."id")::record) THEN old_key_parts := ARRAY[OLD."id"::text]; END IF;
        END IF;
      END IF;
    EXCEPTION WHEN OTHERS THEN
      key_parts := NULL; key_json := NULL;
    END;
    BEGIN
      IF TG_OP <> 'DELETE' THEN n := to_jsonb(NEW); END IF;
      IF TG_OP <> 'INSERT' THEN o := to_jsonb(OLD); END IF;
      IF TG_OP = 'UPDATE' AND OLD *= NEW THEN RETURN NULL; END IF;
      IF key_json IS NULL THEN
        SELECT array_agg(coalesce(n, o) ->> c.name ORDER BY c.at),
               '{' || coalesce(string_agg(to_json(c.name)::text || ':' || (coalesce(n, o) -> c.name)::text, ',' ORDER BY c.at)
                 FILTER (WHERE coalesce(n, o) ? c.name), '') || '}'
          INTO key_parts, key_json FROM unnest(ARRAY['id']::text[]) WITH ORDINALITY AS c (name, at);
        IF TG_OP = 'UPDATE' THEN
          SELECT array_agg(o ->> c.name ORDER BY c.at) INTO old_key_parts
            FROM unnest(ARRAY['id']::text[]) WITH ORDINALITY AS c (name, at);
          IF old_key_parts = key_parts THEN old_key_parts := NULL; END IF;
        END IF;
      END IF;
      body := '"key":' || key_json;
      IF n IS NOT NULL THEN
        SELECT '{' || coalesce(string_agg(to_json(c.key)::text || ':' || c.value::text, ','), '') || '}' INTO row_json
          FROM jsonb_each(n) AS c WHERE ARRAY['id', 'status', 'total']::text[] IS NULL OR c.key = ANY (ARRAY['id', 'status', 'total']::text[]);
        body := body || ',"after":' || row_json;
      END IF;
      IF TG_OP = 'UPDATE' THEN
        SELECT '[' || coalesce(string_agg(to_json(c.key)::text, ','), '') || ']' INTO changed FROM jsonb_each(n) AS c
          WHERE (ARRAY['id', 'status', 'total']::text[] IS NULL OR c.key = ANY (ARRAY['id', 'status', 'total']::text[])) AND (o -> c.key) IS DISTINCT FROM c.value;
      END IF;
      IF TG_OP = 'DELETE' OR old_key_parts IS NOT NULL OR (TG_OP = 'UPDATE' AND false) THEN
        SELECT '{' || coalesce(string_agg(to_json(c.key)::text || ':' || c.value::text, ','), '') || '}' INTO before_json
          FROM jsonb_each(o) AS c WHERE ARRAY['id']::text[] IS NULL OR c.key = ANY (ARRAY['id']::text[]);
        body := body || ',"before":' || before_json;
      END IF;
      IF changed IS NOT NULL THEN body := body || ',"changed":' || changed; END IF;
    EXCEPTION WHEN OTHERS THEN
      body := NULL;
    END;
  END IF;
  IF body IS NULL OR octet_length(body) > 262144 THEN
    key_parts := coalesce(key_parts, ARRAY[NULL::text]);
    IF octet_length(key_json) > 262144 THEN key_json := NULL; END IF;
    body := '"key":' || coalesce(key_json, 'null') || ',"truncated":true';
  END IF;
  -- In the database's own encoding: a conversion may raise.
  IF octet_length(array_to_string(key_parts, '')) > 1024 THEN
    key_parts := ARRAY[encode(sha256(convert_to(array_to_json(key_parts)::text, getdatabaseencoding())), 'hex')];
  END IF;
  IF octet_length(array_to_string(old_key_parts, '')) > 1024 THEN
    old_key_parts := ARRAY[encode(sha256(convert_to(array_to_json(old_key_parts)::text, getdatabaseencoding())), 'hex')];
  END IF;
  context := nullif(current_setting('tablewatcher.context', true), '');
  IF context IS NOT NULL THEN
    BEGIN
      context := context::json::text;
    EXCEPTION WHEN OTHERS THEN
      context := to_json(context)::text;
    END;
    IF octet_length(context) > 16384 THEN context := '{"truncated":true}'; END IF;
  END IF;
  -- It becomes a header of what is sent: nothing else than printable ASCII may.
  traceparent := substring(current_setting('tablewatcher.traceparent', true) FROM '^[!-~]{1,255}$');
  ring_id := nextval('tablewatcher.ids_1ba751af162b991e'::regclass);
  slot := pg_sequence_last_value('tablewatcher.slot_1ba751af162b991e'::regclass);
  IF slot = 0 THEN
    INSERT INTO tablewatcher.ring_1ba751af162b991e_0 (id, op, key, old_key, data, context, traceparent) VALUES (ring_id, operation,
      key_parts, old_key_parts, body, context, traceparent);
  ELSIF slot = 1 THEN
    INSERT INTO tablewatcher.ring_1ba751af162b991e_1 (id, op, key, old_key, data, context, traceparent) VALUES (ring_id, operation,
      key_parts, old_key_parts, body, context, traceparent);
  ELSE
    INSERT INTO tablewatcher.ring_1ba751af162b991e_2 (id, op, key, old_key, data, context, traceparent) VALUES (ring_id, operation,
      key_parts, old_key_parts, body, context, traceparent);
  END IF;
  IF ring_id % 1024 = 0 AND pg_total_relation_size('tablewatcher.ring_1ba751af162b991e_0'::regclass) + pg_total_relation_size('tablewatcher.ring_1ba751af162b991e_1'::regclass)
      + pg_total_relation_size('tablewatcher.ring_1ba751af162b991e_2'::regclass) > 1073741824 THEN
    PERFORM setval('tablewatcher.stop_1ba751af162b991e'::regclass, extract(epoch FROM clock_timestamp())::bigint);
  END IF;
  wake := pg_sequence_last_value('tablewatcher.wake_1ba751af162b991e'::regclass);
  IF wake > 0 AND wake > extract(epoch FROM clock_timestamp()) THEN PERFORM pg_notify('tablewatcher_1ba751af162b991e', ''); END IF;
  RETURN NULL;
END
$function$;

REVOKE ALL ON FUNCTION tablewatcher.capture_1ba751af162b991e() FROM PUBLIC;
COMMENT ON FUNCTION tablewatcher.capture_1ba751af162b991e() IS 'test/shop/w';

INSERT INTO tablewatcher.watcher (hash, identity, table_oid) VALUES ('1ba751af162b991e', 'test/shop/w', 'public.bench'::regclass);

CREATE TRIGGER "00_tablewatcher_1ba751af162b991e" AFTER INSERT OR UPDATE OR DELETE ON public.bench
    FOR EACH ROW EXECUTE FUNCTION tablewatcher.capture_1ba751af162b991e();

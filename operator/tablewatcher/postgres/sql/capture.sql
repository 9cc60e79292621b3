DECLARE
  slot bigint; wake bigint; ring_id bigint;
  operation "char" := CASE TG_OP WHEN 'INSERT' THEN 'i' WHEN 'UPDATE' THEN 'u' ELSE 'd' END;
  key_parts text[]; old_key_parts text[]; key_json text; row_json text; before_json text; changed text; body text; context text; traceparent text;
  n jsonb; o jsonb;
BEGIN
  IF pg_sequence_last_value({stop}) > 0 THEN RETURN NULL; END IF;
  BEGIN
    IF TG_OP = 'INSERT' THEN
      key_parts := ARRAY[{fast_new_key}]; key_json := {key_of_new};
      body := '"key":' || key_json || ',"after":' || {new_row};
    ELSIF TG_OP = 'DELETE' THEN
      key_parts := ARRAY[{fast_old_key}]; key_json := {key_of_old};
      body := '"key":' || key_json || ',"before":' || {fast_before};
    ELSE
      IF {fast_unchanged} THEN RETURN NULL; END IF;
      key_parts := ARRAY[{fast_new_key}]; key_json := {key_of_new};
      IF NOT ({fast_same_key}) THEN old_key_parts := ARRAY[{fast_old_key}]; END IF;
      body := '"key":' || key_json || ',"after":' || {new_row};
      IF {before_always} OR old_key_parts IS NOT NULL THEN body := body || ',"before":' || {fast_before}; END IF;
      body := body || ',"changed":' || {fast_changed};
    END IF;
  EXCEPTION WHEN OTHERS THEN
    body := NULL;
  END;
  IF body IS NULL THEN
    -- The key as the fast form writes it, so that the row keeps its lane whichever form a session is left with.
    BEGIN
      old_key_parts := NULL;
      IF TG_OP = 'DELETE' THEN
        key_parts := ARRAY[{fast_old_key}]; key_json := {key_of_old};
      ELSE
        key_parts := ARRAY[{fast_new_key}]; key_json := {key_of_new};
        IF TG_OP = 'UPDATE' THEN
          IF NOT ({fast_same_key}) THEN old_key_parts := ARRAY[{fast_old_key}]; END IF;
        END IF;
      END IF;
    EXCEPTION WHEN OTHERS THEN
      key_parts := NULL; key_json := NULL;
    END;
    BEGIN
      IF TG_OP <> 'DELETE' THEN n := to_jsonb(NEW); END IF;
      IF TG_OP <> 'INSERT' THEN o := to_jsonb(OLD); END IF;
      IF TG_OP = 'UPDATE' AND {slow_unchanged} THEN RETURN NULL; END IF;
      IF key_json IS NULL THEN
        SELECT array_agg(coalesce(n, o) ->> c.name ORDER BY c.at),
               '{{' || coalesce(string_agg(to_json(c.name)::text || ':' || (coalesce(n, o) -> c.name)::text, ',' ORDER BY c.at)
                 FILTER (WHERE coalesce(n, o) ? c.name), '') || '}}'
          INTO key_parts, key_json FROM unnest({key_names}) WITH ORDINALITY AS c (name, at);
        IF TG_OP = 'UPDATE' THEN
          SELECT array_agg(o ->> c.name ORDER BY c.at) INTO old_key_parts
            FROM unnest({key_names}) WITH ORDINALITY AS c (name, at);
          IF old_key_parts = key_parts THEN old_key_parts := NULL; END IF;
        END IF;
      END IF;
      body := '"key":' || key_json;
      IF n IS NOT NULL THEN
        SELECT '{{' || coalesce(string_agg(to_json(c.key)::text || ':' || c.value::text, ','), '') || '}}' INTO row_json
          FROM jsonb_each(n) AS c WHERE {sent_names} IS NULL OR c.key = ANY ({sent_names});
        body := body || ',"after":' || row_json;
      END IF;
      IF TG_OP = 'UPDATE' THEN
        SELECT '[' || coalesce(string_agg(to_json(c.key)::text, ','), '') || ']' INTO changed FROM jsonb_each(n) AS c
          WHERE ({sent_names} IS NULL OR c.key = ANY ({sent_names})) AND (o -> c.key) IS DISTINCT FROM c.value;
      END IF;
      IF TG_OP = 'DELETE' OR old_key_parts IS NOT NULL OR (TG_OP = 'UPDATE' AND {before_always}) THEN
        SELECT '{{' || coalesce(string_agg(to_json(c.key)::text || ':' || c.value::text, ','), '') || '}}' INTO before_json
          FROM jsonb_each(o) AS c WHERE {before_names} IS NULL OR c.key = ANY ({before_names});
        body := body || ',"before":' || before_json;
      END IF;
      IF changed IS NOT NULL THEN body := body || ',"changed":' || changed; END IF;
    EXCEPTION WHEN OTHERS THEN
      body := NULL;
    END;
  END IF;
  IF body IS NULL OR octet_length(body) > {max_event} THEN
    key_parts := coalesce(key_parts, ARRAY[NULL::text]);
    IF octet_length(key_json) > {max_event} THEN key_json := NULL; END IF;
    body := '"key":' || coalesce(key_json, 'null') || ',"truncated":true';
  END IF;
  -- In the database's own encoding: a conversion may raise.
  IF octet_length(array_to_string(key_parts, '')) > {max_key} THEN
    key_parts := ARRAY[encode(sha256(convert_to(array_to_json(key_parts)::text, getdatabaseencoding())), 'hex')];
  END IF;
  IF octet_length(array_to_string(old_key_parts, '')) > {max_key} THEN
    old_key_parts := ARRAY[encode(sha256(convert_to(array_to_json(old_key_parts)::text, getdatabaseencoding())), 'hex')];
  END IF;
  context := nullif(current_setting('tablewatcher.context', true), '');
  IF context IS NOT NULL THEN
    BEGIN
      context := context::json::text;
    EXCEPTION WHEN OTHERS THEN
      context := to_json(context)::text;
    END;
    IF octet_length(context) > {max_context} THEN context := '{{"truncated":true}}'; END IF;
  END IF;
  -- It becomes a header of what is sent: nothing else than printable ASCII may.
  traceparent := substring(current_setting('tablewatcher.traceparent', true) FROM '^[!-~]{{1,255}}$');
  ring_id := nextval({ids});
  slot := pg_sequence_last_value({slot});
  IF slot = 0 THEN
    INSERT INTO {ring}_0 (id, op, key, old_key, data, context, traceparent) VALUES (ring_id, operation,
      key_parts, old_key_parts, body, context, traceparent);
  ELSIF slot = 1 THEN
    INSERT INTO {ring}_1 (id, op, key, old_key, data, context, traceparent) VALUES (ring_id, operation,
      key_parts, old_key_parts, body, context, traceparent);
  ELSE
    INSERT INTO {ring}_2 (id, op, key, old_key, data, context, traceparent) VALUES (ring_id, operation,
      key_parts, old_key_parts, body, context, traceparent);
  END IF;
  IF ring_id % 1024 = 0 AND pg_total_relation_size('{ring}_0'::regclass) + pg_total_relation_size('{ring}_1'::regclass)
      + pg_total_relation_size('{ring}_2'::regclass) > {max_ring} THEN
    PERFORM setval({stop}, extract(epoch FROM clock_timestamp())::bigint);
  END IF;
  wake := pg_sequence_last_value({wake});
  IF wake > 0 AND wake > extract(epoch FROM clock_timestamp()) THEN PERFORM pg_notify({channel}, ''); END IF;
  RETURN NULL;
END

  BEGIN
{fast}
  EXCEPTION WHEN OTHERS OR assert_failure THEN
    body := NULL;
  END;
  IF body IS NULL OR octet_length(body) > {max_event}{long_key} THEN
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
      EXCEPTION WHEN OTHERS OR assert_failure THEN
        key_parts := NULL; key_json := NULL;
      END;{fast_routing}
      BEGIN
        IF TG_OP <> 'DELETE' THEN n := to_jsonb(NEW); END IF;
        IF TG_OP <> 'INSERT' THEN o := to_jsonb(OLD); END IF;{slow_unchanged}
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
        END IF;{slow_routing}
        body := '"key":' || key_json;
        IF n IS NOT NULL THEN
          body := body || ',"after":{{' || (SELECT coalesce(string_agg(to_json(c.key)::text || ':' || c.value::text, ','), '')
            FROM jsonb_each(n) AS c WHERE {sent_names} IS NULL OR c.key = ANY ({sent_names})) || '}}';
        END IF;
        IF TG_OP = 'DELETE' OR old_key_parts IS NOT NULL OR (TG_OP = 'UPDATE' AND {before_always}) THEN
          body := body || ',"before":{{' || (SELECT coalesce(string_agg(to_json(c.key)::text || ':' || c.value::text, ','), '')
            FROM jsonb_each(o) AS c WHERE {before_names} IS NULL OR c.key = ANY ({before_names})) || '}}';
        END IF;
        IF TG_OP = 'UPDATE' THEN
          body := body || ',"changed":[' || (SELECT coalesce(string_agg(to_json(c.key)::text, ','), '') FROM jsonb_each(n) AS c
            WHERE ({sent_names} IS NULL OR c.key = ANY ({sent_names})) AND (o -> c.key)::text IS DISTINCT FROM c.value::text) || ']';
        END IF;
      EXCEPTION WHEN OTHERS OR assert_failure THEN
        body := NULL;
      END;{slow_filter}
    END IF;
    IF body IS NULL OR octet_length(body) > {max_event} THEN
      IF key_json IS NULL THEN
        BEGIN
          IF TG_OP = 'DELETE' THEN key_json := {key_of_old}; ELSE key_json := {key_of_new}; END IF;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
          key_json := NULL;
        END;
      END IF;
      key_parts := coalesce(key_parts, ARRAY[NULL::text]);
      IF octet_length(key_json) > {max_event} THEN key_json := NULL; END IF;
      before := NULL;
      IF old_key_parts IS NOT NULL THEN
        -- Or whoever keeps a copy would not know which row is no more.
        BEGIN
          before := ',"before":' || {key_of_old};
        EXCEPTION WHEN OTHERS OR assert_failure THEN
          before := NULL;
        END;
        IF coalesce(octet_length(key_json), 0) + octet_length(before) > {max_event} THEN before := NULL; END IF;
      END IF;
      body := '"key":' || coalesce(key_json, 'null') || coalesce(before, '') || ',"truncated":true'{filter_of_truncated};
    END IF;
    BEGIN
      -- In the database's own encoding: a conversion may raise.
      IF octet_length(array_to_string(key_parts, '')) > {max_key} THEN
        key_parts := ARRAY[encode(sha256(convert_to(array_to_json(key_parts)::text, getdatabaseencoding())), 'hex')];
      END IF;
      IF octet_length(array_to_string(old_key_parts, '')) > {max_key} THEN
        old_key_parts := ARRAY[encode(sha256(convert_to(array_to_json(old_key_parts)::text, getdatabaseencoding())), 'hex')];
      END IF;
    EXCEPTION WHEN OTHERS OR assert_failure THEN
      -- Over a gigabyte as JSON: only where the whole row is the key, and there no order is promised.
      key_parts := ARRAY[NULL::text]; old_key_parts := NULL;
    END;
  END IF;
{context}
  slot := CASE WHEN pg_sequence_last_value({stop}) > 0 THEN 3 ELSE coalesce(pg_sequence_last_value({slot}), 0) END;
{insert}
  IF ring_id % {look_every} < {ids_a_row} THEN
{bound}
  END IF;

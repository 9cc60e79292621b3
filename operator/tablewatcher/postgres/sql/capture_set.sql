{context}
    slot := CASE WHEN pg_sequence_last_value({stop}) > 0 THEN 3 ELSE pg_sequence_last_value({slot}) END;
    IF slot = 0 THEN
      INSERT INTO {ring}_0 ({ring_columns}) {fast};
    ELSIF slot = 1 THEN
      INSERT INTO {ring}_1 ({ring_columns}) {fast};
    ELSIF slot = 2 THEN
      INSERT INTO {ring}_2 ({ring_columns}) {fast};
    END IF;
    IF current_setting('tablewatcher.one_by_one', true) = 'on' THEN
      PERFORM set_config('tablewatcher.one_by_one', '', true);
{one_by_one}
    END IF;

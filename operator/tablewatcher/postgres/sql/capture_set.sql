{context}{counting}
    slot := CASE WHEN pg_sequence_last_value({stop}) > 0 THEN 3 ELSE coalesce(pg_sequence_last_value({slot}), 0) END;
{insert}
    GET DIAGNOSTICS written = ROW_COUNT;
    -- All that is rare stands behind one expression: each costs a single-row statement half a microsecond and more.
    IF written = {number_of_few} OR current_setting('tablewatcher.one_by_one', true) = 'on'
       OR pg_sequence_last_value({wake}) > 0 OR (FOUND AND currval({ids}) % {look_every} < {look_at} * written) THEN
      IF FOUND AND currval({ids}) % {look_every} < {look_at} * written THEN
{bound}
        slot := CASE WHEN pg_sequence_last_value({stop}) > 0 THEN 3 ELSE slot END;
      END IF;
      IF slot < 3 AND (written = {number_of_few} OR current_setting('tablewatcher.one_by_one', true) = 'on') THEN
        done := {number_of_few}; size := {block_first};
        WHILE size > 0 AND done < {block_most} AND slot < 3 LOOP
          {gathered};
          IF written = 0 THEN
            done := NULL;
            EXIT;
          END IF;
          EXIT WHEN {unfit};{unfit_blocks}
          average := {average};
          together := {together};
{insert_chunks}
          done := CASE WHEN written = size THEN done + size END;
          size := {next_size};
{bound}
          slot := CASE WHEN pg_sequence_last_value({stop}) > 0 THEN 3 ELSE slot END;
        END LOOP;
      END IF;
      IF slot < 3 AND done IS NOT NULL THEN
        octets := 0; bodies := NULL;{begin}
        FOR picked IN {many} LOOP
          octets := octets + picked.octets;
          IF octets > {chunk_bytes} THEN
            IF bodies IS NOT NULL THEN
{chunk}
              EXIT WHEN slot > 2;
              bodies := NULL;{begin}
            END IF;
            octets := picked.octets;
          END IF;
          bodies := bodies || picked.body;{gather}
        END LOOP;
        IF bodies IS NOT NULL AND slot < 3 THEN
{chunk}
        END IF;
      END IF;
      IF current_setting('tablewatcher.one_by_one', true) = 'on' THEN
        PERFORM set_config('tablewatcher.one_by_one', '', true);
{one_by_one}
      END IF;
{notify}
    END IF;

            ring_id := nextval({ids});
{insert}
            IF ring_id / {ids_a_row} % 64 = 0 THEN
{bound}
              slot := CASE WHEN pg_sequence_last_value({stop}) > 0 THEN 3 ELSE slot END;
            END IF;

            ring_id := nextval({ids});
{insert}
            IF ring_id / {ids_a_row} % 64 = 0 THEN
              IF {ring_size} > {max_ring} AND pg_sequence_last_value({stop}) = 0 THEN
                PERFORM setval({stop}, extract(epoch FROM clock_timestamp())::bigint);
              END IF;
              slot := CASE WHEN pg_sequence_last_value({stop}) > 0 THEN 3 ELSE slot END;
            END IF;

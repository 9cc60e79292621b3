  IF {size_is_due} AND pg_total_relation_size('{ring}_0'::regclass) + pg_total_relation_size('{ring}_1'::regclass)
      + pg_total_relation_size('{ring}_2'::regclass) > {max_ring} THEN
    PERFORM setval({stop}, extract(epoch FROM clock_timestamp())::bigint);
  END IF;
  IF pg_sequence_last_value({wake}) > 0 AND pg_sequence_last_value({wake}) > extract(epoch FROM clock_timestamp()) THEN
    PERFORM pg_notify({channel}, '');
  END IF;

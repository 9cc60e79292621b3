  IF pg_sequence_last_value({wake}) > 0 AND pg_sequence_last_value({wake}) > extract(epoch FROM clock_timestamp()) THEN
    PERFORM pg_notify({channel}, '');
  END IF;

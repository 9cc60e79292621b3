  IF pg_sequence_last_value({wake}) > 0 THEN
    IF pg_sequence_last_value({wake}) > extract(epoch FROM clock_timestamp()) THEN
      PERFORM pg_notify({channel}, '');
    END IF;
  END IF;

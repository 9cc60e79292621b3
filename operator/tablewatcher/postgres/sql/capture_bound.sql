BEGIN
  IF {ring_size} > {max_ring} AND pg_sequence_last_value({stop}) = 0 THEN
    PERFORM setval({stop}, extract(epoch FROM clock_timestamp())::bigint);
  END IF;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  -- The listener is emptying a table of the ring, or apply is changing all of them: the next look is soon enough.
  NULL;
END;

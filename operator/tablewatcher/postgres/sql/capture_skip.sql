  IF current_setting('tablewatcher.skip', true) = 'on' THEN
    {count}
    RETURN NULL;
  END IF;

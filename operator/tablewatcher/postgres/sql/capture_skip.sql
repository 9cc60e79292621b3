  IF current_setting('tablewatcher.skip', true) = 'on' THEN
    PERFORM nextval({skips});
    RETURN NULL;
  END IF;

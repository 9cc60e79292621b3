  IF current_setting('tablewatcher.context', true) <> '' THEN
    BEGIN
      context := current_setting('tablewatcher.context', true)::json::text;
    EXCEPTION WHEN OTHERS OR assert_failure THEN
      context := to_json(current_setting('tablewatcher.context', true))::text;
    END;
    IF octet_length(context) > {max_context} THEN context := '{{"truncated":true}}'; END IF;
  END IF;

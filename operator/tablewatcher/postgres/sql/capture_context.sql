  IF current_setting('tablewatcher.context', true) <> '' THEN
    BEGIN
      context := current_setting('tablewatcher.context', true)::json::text;
    EXCEPTION WHEN OTHERS OR assert_failure THEN
      -- Of a longer one nothing is kept, and of hundreds of megabytes this would raise.
      context := to_json(left(current_setting('tablewatcher.context', true), {max_context}))::text;
    END;
    IF octet_length(context) > {max_context} THEN context := '{{"truncated":true}}'; END IF;
  END IF;

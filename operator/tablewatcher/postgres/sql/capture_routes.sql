
      BEGIN
        IF TG_OP = 'DELETE' THEN routes := ARRAY[{old}]; ELSE routes := ARRAY[{new}]; END IF;
      EXCEPTION WHEN OTHERS OR assert_failure THEN
        routes := NULL;
      END;

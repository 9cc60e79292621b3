
      BEGIN
        new_holds := TG_OP <> 'DELETE' AND coalesce({new_holds}, false);
        old_holds := TG_OP <> 'INSERT' AND coalesce({old_holds}, false);
      EXCEPTION WHEN OTHERS OR assert_failure THEN
        -- A column that cannot be compared any more keeps nothing back.
        new_holds := TG_OP <> 'DELETE'; old_holds := TG_OP <> 'INSERT';
      END;
      IF NOT (new_holds OR old_holds) THEN {leave}; END IF;
      IF TG_OP = 'UPDATE' THEN
        filter_word := CASE WHEN new_holds AND old_holds THEN 'stayed' WHEN new_holds THEN 'entered' ELSE 'left' END;
        body := body || {member};
      END IF;

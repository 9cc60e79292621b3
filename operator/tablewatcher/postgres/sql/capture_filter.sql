
      BEGIN
        -- Of the records wherever that goes, as the fast form: as jsonb a text has lost its collation, and NULL is JSON's null.
        new_holds := TG_OP <> 'DELETE' AND coalesce({new_record}, false);
        old_holds := TG_OP <> 'INSERT' AND coalesce({old_record}, false);
      EXCEPTION WHEN OTHERS OR assert_failure THEN
        BEGIN
          new_holds := TG_OP <> 'DELETE' AND coalesce({new_jsonb}, false);
          old_holds := TG_OP <> 'INSERT' AND coalesce({old_jsonb}, false);
        EXCEPTION WHEN OTHERS OR assert_failure THEN
          -- A column that cannot be compared any more keeps nothing back.
          new_holds := TG_OP <> 'DELETE'; old_holds := TG_OP <> 'INSERT';
        END;
      END;
      IF NOT (new_holds OR old_holds) THEN {leave}; END IF;
      IF TG_OP = 'UPDATE' THEN
        filter_word := CASE WHEN new_holds AND old_holds THEN 'stayed' WHEN new_holds THEN 'entered' ELSE 'left' END;
        body := body || {member};
      END IF;

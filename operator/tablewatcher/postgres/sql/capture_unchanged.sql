
        IF TG_OP = 'UPDATE' THEN
          BEGIN
            IF {same_images} THEN {leave}; END IF;
          EXCEPTION WHEN OTHERS OR assert_failure THEN
            -- One of them is gone. As text: as jsonb 1.0 is 1.00.
            IF NOT EXISTS (SELECT FROM unnest({names}) AS c (name)
                           WHERE (o -> c.name)::text IS DISTINCT FROM (n -> c.name)::text OR NOT (n ? c.name)) THEN {leave}; END IF;
          END;
        END IF;

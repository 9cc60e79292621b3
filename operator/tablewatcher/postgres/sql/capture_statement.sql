  IF TG_OP = 'INSERT' THEN
{rows}
{notify}
    RETURN NULL;
  END IF;

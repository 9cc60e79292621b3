{head}DECLARE
  slot bigint; ring_id bigint; key_parts text[]; old_key_parts text[]; body text; context text;{variables}
  key_json text; n jsonb; o jsonb;{picked}
BEGIN
{gates}
{statement}{rows}
{notify}
  RETURN NULL;
END

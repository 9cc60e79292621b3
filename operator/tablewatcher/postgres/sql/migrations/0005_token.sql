-- The same answers as before, in time that grows with the text and not with its square: sign by sign, where it was
-- every byte out of a copy of the whole. The reader of a ring waits for it, and with it every watcher of the database.
CREATE OR REPLACE FUNCTION tablewatcher.token(parts text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(
        CASE
            WHEN part IS NULL OR part = '' THEN '_'
            WHEN part COLLATE "C" ~ '^[A-Za-z0-9_-]+$' THEN part
            ELSE array_to_string(ARRAY(
                SELECT CASE
                    WHEN strpos('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-', sign COLLATE "C") > 0 THEN sign
                    ELSE upper(regexp_replace(encode(convert_to(sign, 'UTF8'), 'hex'), '..', '%\&', 'g'))
                END
                FROM unnest(string_to_array(part, NULL)) WITH ORDINALITY AS signs (sign, at) ORDER BY at), '')
        END, ',' ORDER BY nth)
    FROM unnest(parts) WITH ORDINALITY AS given (part, nth)
$$;

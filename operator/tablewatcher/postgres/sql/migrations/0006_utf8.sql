-- A text as UTF-8 that never raises: databases of other encodings can hold what Unicode has no character for, such as
-- byte 81 in WIN1252. Halved until what cannot be said is alone, and a question mark then. Only called where the
-- encoding is another one: in UTF-8 a text is what it is.
CREATE FUNCTION tablewatcher.utf8(given text) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN convert_to(given, 'UTF8');
EXCEPTION WHEN untranslatable_character OR character_not_in_repertoire THEN
    IF length(given) = 1 THEN
        RETURN '\x3f'::bytea;
    END IF;
    RETURN tablewatcher.utf8(left(given, length(given) / 2)) || tablewatcher.utf8(substr(given, length(given) / 2 + 1));
END
$$;

REVOKE ALL ON FUNCTION tablewatcher.utf8(text) FROM PUBLIC;

-- Elsewhere the token may run in parallel, which a block with a guard may not.
DO $migration$ BEGIN IF pg_catalog.getdatabaseencoding() <> 'UTF8' THEN EXECUTE $function$
CREATE OR REPLACE FUNCTION tablewatcher.token(parts text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(
        CASE
            WHEN part IS NULL OR part = '' THEN '_'
            WHEN part COLLATE "C" ~ '^[A-Za-z0-9_-]+$' THEN part
            ELSE array_to_string(ARRAY(
                SELECT CASE
                    WHEN strpos('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-', sign COLLATE "C") > 0 THEN sign
                    ELSE upper(regexp_replace(encode(tablewatcher.utf8(sign), 'hex'), '..', '%\&', 'g'))
                END
                FROM unnest(string_to_array(part, NULL)) WITH ORDINALITY AS signs (sign, at) ORDER BY at), '')
        END, ',' ORDER BY nth)
    FROM unnest(parts) WITH ORDINALITY AS given (part, nth)
$$ $function$; END IF; END $migration$;

-- name: server
SELECT pg_catalog.current_setting('server_version_num')::integer AS version,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       pg_catalog.current_database() AS database,
       pg_catalog.getdatabaseencoding()::text AS encoding,
       pg_catalog.current_setting('max_identifier_length')::integer AS longest_name,
       current_user AS role,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS may_create_schema,
       (SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_schema_privilege(n.oid, 'CREATE')
          FROM pg_catalog.pg_namespace n WHERE n.nspname = 'tablewatcher') AS may_use_schema,
       (SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
          FROM pg_catalog.pg_namespace n WHERE n.nspname = 'tablewatcher') AS may_see_schema,
       ARRAY(SELECT l.lanname::text FROM pg_catalog.pg_language l WHERE l.lanname IN ('plpgsql', 'sql')
             AND NOT pg_catalog.has_language_privilege(l.oid, 'USAGE') ORDER BY 1) AS closed_languages,
       ARRAY(SELECT p.pubname::text FROM pg_catalog.pg_publication p WHERE p.puballtables ORDER BY 1) AS publications,
       -- Not of pg_subscription: before version 14 not every role may read its oid.
       ARRAY(SELECT DISTINCT s.subname::text FROM pg_catalog.pg_subscription_rel r
             JOIN pg_catalog.pg_stat_subscription s ON s.subid = r.srsubid JOIN pg_catalog.pg_class c ON c.oid = r.srrelid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'tablewatcher' ORDER BY 1) AS subscriptions

-- name: traps
-- What has a name of ours and is not as we make it, in that code of somebody else's would run with the rights of whoever
-- reads or writes it.
SELECT c.relname::text AS name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'tablewatcher' AND (
    c.relname = ANY (%(sequences)s) AND c.relkind <> 'S'
    OR c.relname = ANY (%(tables)s) AND (
        c.relkind <> 'r' OR c.relrowsecurity
        OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
        OR EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid)
        OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c')
        OR EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid)
        OR EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
                   WHERE a.attrelid = c.oid AND y.typnamespace <> 'pg_catalog'::regnamespace)
        OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND (i.indexprs IS NOT NULL OR EXISTS (
                   SELECT FROM pg_catalog.pg_depend d
                   WHERE d.objid = i.indexrelid AND d.classid = 'pg_catalog.pg_class'::regclass
                     AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass))))
        OR EXISTS (SELECT FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_depend d ON d.objid = f.oid
                   WHERE f.adrelid = c.oid AND d.classid = 'pg_catalog.pg_attrdef'::regclass
                     AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass))))
ORDER BY 1

-- name: event_triggers
SELECT e.evtname::text AS name FROM pg_catalog.pg_event_trigger e
WHERE e.evtenabled <> 'D' AND e.evtevent = 'ddl_command_end' ORDER BY 1

-- name: event_trigger_functions
SELECT pg_catalog.quote_ident(e.evtname) AS name,
       pg_catalog.format('%I.%I()', n.nspname, p.proname) AS function,
       pg_catalog.format('%I()', p.proname) AS called
FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE e.evtenabled <> 'D' ORDER BY 1

-- name: given_away
-- What another role has that ours may not act for, or that may not use the schema: foreign keys are looked after as it.
SELECT c.relname::text AS name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'tablewatcher' AND c.relname = ANY (%(names)s) AND c.relkind IN ('r', 'S')
  AND NOT (pg_catalog.pg_has_role(c.relowner, 'USAGE') AND pg_catalog.has_schema_privilege(c.relowner, n.oid, 'USAGE'))
ORDER BY 1

-- name: home
-- On a standby there is no timeline: what is inserted next is not for it to say.
SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier,
       d.oid::bigint AS database_oid,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN
         ('x' || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8))::bit(32)::bigint
       END AS timeline
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()

-- name: recorded_home
SELECT system_identifier, database_oid::bigint AS database_oid, timeline FROM tablewatcher.watcher
WHERE hash = %(hash)s AND system_identifier IS NOT NULL

-- name: installed_source
SELECT source_digest FROM tablewatcher.watcher WHERE hash = %(hash)s

-- name: partition_tree
-- The table `root.oid` and all partitions below it. A part of other queries, in a LATERAL subquery. Not by
-- pg_partition_tree: it locks each, and waits for whoever has locked one of them.
WITH RECURSIVE tree AS (
  SELECT root.oid UNION ALL
  SELECT c.oid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition)
SELECT tree.oid FROM tree

-- name: table
SELECT c.oid::bigint AS oid, c.relkind::text AS kind, c.relpersistence = 't' AS temporary,
       ARRAY(SELECT DISTINCT pg_catalog.pg_get_userbyid(o.relowner)::text
             FROM (SELECT c.oid) AS root CROSS JOIN LATERAL ({partition_tree}) AS p
             JOIN pg_catalog.pg_class o ON o.oid = p.oid WHERE o.oid = c.oid OR o.relkind = 'p' ORDER BY 1) AS owners,
       pg_catalog.has_table_privilege(c.oid, 'TRIGGER') AS may_trigger,
       pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') AS may_see,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') AS may_alter
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s::text AND c.relname = %(table)s::text

-- name: partitions
-- Those that may have triggers of their own. Foreign tables have none for TRUNCATE before version 16.
SELECT c.oid::bigint AS oid, pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS name,
       pg_catalog.has_table_privilege(c.oid, 'TRIGGER') AS may_trigger
FROM (SELECT %(table_oid)s::oid AS oid) AS root CROSS JOIN LATERAL ({partition_tree}) AS p
JOIN pg_catalog.pg_class c ON c.oid = p.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE p.oid <> root.oid AND (c.relkind IN ('r', 'p')
  OR c.relkind = 'f' AND pg_catalog.current_setting('server_version_num')::integer >= 160000)
ORDER BY 2

-- name: similar_tables
-- Of its schema, or of a name that differs by case, or by what stands before a dot and in quotes.
SELECT n.nspname::text AS schema, c.relname::text AS name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'tablewatcher')
  AND c.relpersistence <> 't' AND (lower(c.relname) = %(plain)s OR n.nspname = %(schema)s)
ORDER BY lower(c.relname) <> %(plain)s, 1, 2 LIMIT 2000

-- name: table_name
SELECT n.nspname::text || '.' || c.relname::text AS name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %(table_oid)s::oid

-- name: columns
-- comparable: a value is made of its text by code of the server's own. What a domain asks is somebody else's, so it is
-- compared as the type below it, and arrays of domains or composites are not compared.
SELECT a.attname::text AS name, t.typname::text AS type, a.attlen::integer AS length,
       t.typnamespace = 'pg_catalog'::regnamespace AS builtin, t.typtype = 'e' AS enum, a.attgenerated = 'v' AS virtual,
       pg_catalog.format('%%I.%%I', n.nspname, t.typname) AS type_name,
       pg_catalog.format('%%I.%%I', m.nspname, coalesce(b.typname, t.typname)) AS compared_as,
       coalesce(b.typnamespace, t.typnamespace) = 'pg_catalog'::regnamespace OR coalesce(b.typtype, t.typtype) = 'e'
         OR e.typtype = 'e' AS comparable, t.oid::bigint AS type_oid,
       EXISTS (SELECT FROM pg_catalog.pg_cast k WHERE k.castsource = t.oid AND t.typtype = 'e') AS cast
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
LEFT JOIN pg_catalog.pg_type e ON e.oid = coalesce(b.typelem, t.typelem)
JOIN pg_catalog.pg_namespace m ON m.oid = coalesce(b.typnamespace, t.typnamespace)
WHERE a.attrelid = %(table_oid)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum

-- name: primary_key
SELECT a.attname::text AS name
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, nth)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = %(table_oid)s AND i.indisprimary AND i.indimmediate AND k.nth <= i.indnkeyatts
ORDER BY k.nth

-- name: rows_only
-- What makes statement triggers of a table tell something else than row triggers would.
SELECT 'the table has partitions' AS why FROM pg_catalog.pg_class WHERE oid = %(table_oid)s AND relkind = 'p'
UNION ALL
SELECT pg_catalog.format('the table is a partition of %%I.%%I', n.nspname, c.relname)
FROM pg_catalog.pg_class p JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.pg_partition_root(p.oid)
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE p.oid = %(table_oid)s AND p.relispartition
UNION ALL
SELECT 'tables inherit from it' FROM pg_catalog.pg_class c WHERE c.oid = %(table_oid)s AND c.relkind = 'r' AND EXISTS (
    SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid)
UNION ALL
SELECT 'it inherits from another table' FROM pg_catalog.pg_class c
WHERE c.oid = %(table_oid)s AND NOT c.relispartition AND EXISTS (
    SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)
UNION ALL
SELECT 'a subscription writes to it' WHERE EXISTS (
    SELECT FROM pg_catalog.pg_subscription_rel WHERE srrelid = %(table_oid)s)
UNION ALL
SELECT 'a foreign key refers from the table to itself' WHERE EXISTS (
    SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conrelid = %(table_oid)s AND confrelid = conrelid)
UNION ALL
SELECT 'it has the row trigger ' || pg_catalog.array_to_string(
         (pg_catalog.array_agg(pg_catalog.quote_ident(t.tgname::text) ORDER BY t.tgname))[1:3], ', ')
         || CASE WHEN count(*) > 3 THEN ' and others' ELSE '' END
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE t.tgrelid = %(table_oid)s AND NOT t.tgisinternal AND t.tgtype & 1 = 1 AND n.nspname <> 'tablewatcher'
HAVING count(*) > 0
UNION ALL
-- Of the triggers for statements those of inserts fire in the order of their names, and those of what else the statement
-- does (ON CONFLICT, WITH) before them.
(SELECT pg_catalog.format('it has the trigger %%I for statements, which may fire before ours', t.tgname)
 FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
 JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE t.tgrelid = %(table_oid)s AND NOT t.tgisinternal AND t.tgtype & 67 = 0 AND n.nspname <> 'tablewatcher'
   AND (t.tgtype & 24 > 0 OR t.tgtype & 4 > 0 AND t.tgname::text COLLATE "C" < '00_tablewatcher_')
 ORDER BY t.tgname LIMIT 1)
UNION ALL
-- In a statement on several tables it may change a row that the same statement has just put into this one. Triggers
-- that are not AFTER do so before any event of that statement, of whichever kind.
(SELECT pg_catalog.format('table %%s has the trigger %%I, which may write to this one', t.tgrelid::regclass, t.tgname)
 FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
 JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE t.tgrelid <> %(table_oid)s AND NOT t.tgisinternal AND t.tgtype & 66 = 0 AND n.nspname <> 'tablewatcher'
 ORDER BY t.oid LIMIT 1)

-- name: remarks
-- What is done to the table without its triggers, or before them. Of many partitions three are named.
WITH below AS (
    SELECT c.relkind, c.relpersistence, pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS name
    FROM (SELECT %(table_oid)s::oid AS oid) AS root CROSS JOIN LATERAL ({partition_tree}) AS p
    JOIN pg_catalog.pg_class c ON c.oid = p.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
), named AS (
    SELECT CASE WHEN relkind = 'f' THEN 'foreign' ELSE 'unlogged' END AS kind,
           pg_catalog.array_to_string((pg_catalog.array_agg(name ORDER BY name))[1:3], ', ')
             || CASE WHEN count(*) > 3 THEN ' and others' ELSE '' END AS names
    FROM below WHERE relkind = 'f' OR (relkind = 'r' AND relpersistence = 'u') GROUP BY 1
)
SELECT 'UNLOGGED: ' || names || '; after a crash of the server PostgreSQL empties what is, without a trigger: no event tells of that'
       AS what FROM named WHERE kind = 'unlogged'
UNION ALL
SELECT 'foreign tables: ' || names || '; what is written where their rows are kept is not captured, only what is written through this server'
       || CASE WHEN pg_catalog.current_setting('server_version_num')::integer BETWEEN 140000 AND 159999
               THEN ', and before PostgreSQL 16 no TRUNCATE of one by itself' ELSE '' END
FROM named WHERE kind = 'foreign'
UNION ALL
SELECT 'session_replication_role is replica for ' || CASE s.setrole WHEN 0 THEN 'every role' ELSE 'role ' || pg_catalog.quote_ident(
         pg_catalog.pg_get_userbyid(s.setrole)::text) END || ', and no trigger fires in such sessions: what they write is not captured'
FROM pg_catalog.pg_db_role_setting s
WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
  AND EXISTS (SELECT FROM pg_catalog.unnest(s.setconfig) AS c (text) WHERE lower(c.text) = 'session_replication_role=replica')
UNION ALL
SELECT 'session_replication_role is replica for the whole server, and no trigger fires: what is written is not captured'
FROM pg_catalog.pg_settings WHERE name = 'session_replication_role' AND setting = 'replica'
  AND source IN ('configuration file', 'command line')
UNION ALL
-- AFTER triggers for rows fire in the order of their names, byte by byte; those that are deferred, after all others.
SELECT CASE count(*) WHEN 1 THEN 'trigger ' ELSE 'triggers ' END || pg_catalog.array_to_string(
         (pg_catalog.array_agg(pg_catalog.quote_ident(t.tgname::text) ORDER BY t.tgname))[1:3], ', ')
         || CASE count(*) WHEN 1 THEN ' fires before ours, since its name sorts first: if it changes'
                 WHEN 2 THEN ' fire before ours, since their names sort first: if one changes'
                 WHEN 3 THEN ' fire before ours, since their names sort first: if one changes'
                 ELSE ' and others fire before ours, since their names sort first: if one changes' END
         || ' a row of this table, that is told before what it fired for; rename it with ALTER TRIGGER'
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE t.tgrelid = %(table_oid)s AND NOT t.tgisinternal AND t.tgtype & 1 = 1 AND t.tgtype & 66 = 0 AND NOT t.tginitdeferred
  AND n.nspname <> 'tablewatcher' AND t.tgname::text COLLATE "C" < '00_tablewatcher_'
HAVING count(*) > 0
UNION ALL
-- What runs inside of a statement fires its triggers before the statement's own rows. What a function does is guessed.
(SELECT pg_catalog.format('trigger %%I runs before each row, and its function seems to change rows of this table: where the same statement'
         ' has written these, their events come in the wrong order (docs/events.md, Order and repeats); an AFTER trigger mostly does the same in order', t.tgname)
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
WHERE t.tgrelid = %(table_oid)s AND NOT t.tgisinternal AND t.tgtype & 3 = 3
  AND p.prosrc ~* E'\\m(insert\\s+into|update|delete\\s+from|merge\\s+into)\\M'
  AND pg_catalog.strpos(pg_catalog.lower(p.prosrc), pg_catalog.lower(c.relname::text)) > 0
ORDER BY t.tgname LIMIT 3)

-- name: spills_limited
-- Whether somebody writes here with a bound on temporary files, to which transition tables would count.
SELECT EXISTS (SELECT FROM pg_catalog.pg_settings WHERE name = 'temp_file_limit' AND setting <> '-1')
  OR EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (text)
             WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
               AND c.text LIKE 'temp_file_limit=%%' AND c.text <> 'temp_file_limit=-1') AS limited

-- name: schema_version
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'tablewatcher') AS schema_exists

-- name: shared_rights
-- tables, functions: those that are there; an earlier version made fewer.
WITH f AS (
    SELECT p.oid, p.proname || '(' || pg_catalog.oidvectortypes(p.proargtypes) || ')' AS name
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'tablewatcher')
SELECT coalesce(pg_catalog.array_agg(c.relname::text ORDER BY c.relname), '{}') AS tables,
       ARRAY(SELECT f.name FROM f WHERE f.name = ANY (%(functions)s) ORDER BY 1) AS functions,
       coalesce(pg_catalog.array_agg(DISTINCT pg_catalog.pg_get_userbyid(c.relowner)::text)
         FILTER (WHERE NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')), '{}') AS foreign_owners,
       pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, 'SELECT')
         AND pg_catalog.has_table_privilege(c.oid, 'INSERT') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')
         AND pg_catalog.has_table_privilege(c.oid, 'DELETE'))
       AND NOT EXISTS (SELECT FROM f WHERE f.name = ANY (%(functions)s)
                       AND NOT pg_catalog.has_function_privilege(f.oid, 'EXECUTE')) AS usable,
       pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, 'SELECT')) FILTER (WHERE c.relname IN ('migration', 'watcher')) AS readable
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'tablewatcher' AND c.relname = ANY (%(tables)s)

-- name: applied_migrations
SELECT version FROM tablewatcher.migration ORDER BY version

-- name: owned_objects
SELECT c.relname::text AS name, pg_catalog.obj_description(c.oid, 'pg_class') AS comment,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') AS ours
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'tablewatcher' AND c.relname = ANY (%(names)s)
ORDER BY 1

-- name: rings_without
-- Made by a version that had no use for the column yet.
SELECT c.relname::text AS name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'tablewatcher' AND c.relname = ANY (%(names)s) AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = %(column)s AND NOT a.attisdropped)
ORDER BY 1

-- name: ids
-- ahead: how many a session draws at once.
SELECT s.seqincrement AS apart, s.seqcache AS ahead
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'tablewatcher' AND c.relname = %(name)s

-- name: capture_function
SELECT p.oid::bigint AS oid, p.prosrc AS source, p.prosecdef AS security_definer, coalesce(p.proconfig, ARRAY[]::text[]) AS settings,
       pg_catalog.obj_description(p.oid, 'pg_proc') AS comment,
       pg_catalog.pg_get_userbyid(p.proowner)::text AS owner, pg_catalog.pg_has_role(p.proowner, 'USAGE') AS may_change,
       NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = ANY (%(owners)s::text[])
                   AND NOT pg_catalog.has_function_privilege(r.oid, p.oid, 'EXECUTE')) AS owners_may_call,
       pg_catalog.has_function_privilege('public', p.oid, 'EXECUTE') AS all_may_call
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'tablewatcher' AND p.proname = %(function)s AND p.pronargs = 0

-- name: trigger_is_off
-- Of a trigger t. A part of other queries, as what follows.
t.tgenabled NOT IN ('O', 'A')

-- name: trigger_was_touched
-- It fires, and its row was written again after it was made, as by DISABLE TRIGGER and ENABLE TRIGGER: what it depends on
-- is noted once, by the transaction that made it. OFFSET: that is looked up by index, where a planner without statistics
-- would compare all with all.
t.tgenabled = 'O' AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_trigger'::regclass
    AND d.objid = t.oid AND d.xmin = t.xmin OFFSET 0)

-- name: capture_triggers
-- A trigger that is switched off on one partition alone counts as off.
WITH ours AS MATERIALIZED (
    SELECT t.tgname, t.tgrelid, t.tgtype, t.tgenabled, t.tgnewtable, t.tgisinternal, t.tgparentid,
           {trigger_is_off} AS is_off, {trigger_was_touched} AS touched
    FROM pg_catalog.pg_trigger t WHERE t.tgfoid = %(function_oid)s
), of_name AS (
    SELECT *, pg_catalog.bool_or(is_off) OVER same AS off, pg_catalog.bool_or(touched) OVER same AS any_touched
    FROM ours WINDOW same AS (PARTITION BY tgname)
)
SELECT tgname::text AS name, tgrelid::bigint AS table_oid, tgtype::integer AS type,
       CASE WHEN off THEN 'D' ELSE tgenabled::text END AS enabled, any_touched AS touched,
       tgnewtable::text AS new_table
FROM of_name WHERE NOT tgisinternal AND tgparentid = 0

-- name: watchers
-- table_name by its name in a document: the table of an earlier version has no such column.
SELECT w.hash, w.identity, w.table_oid::bigint AS table_oid, pg_catalog.to_jsonb(w) ->> 'table_name' AS table_name
FROM tablewatcher.watcher w ORDER BY w.identity

-- name: held_rights
-- Which of the rights asked for a role holds; an object that is not there gives none.
SELECT w.nth::integer AS nth
FROM ROWS FROM (pg_catalog.unnest(%(kinds)s::text[]), pg_catalog.unnest(%(names)s::text[]),
                pg_catalog.unnest(%(privileges)s::text[])) WITH ORDINALITY AS w (kind, name, privilege, nth)
JOIN pg_catalog.pg_namespace n ON n.nspname = 'tablewatcher'
LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
LEFT JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid AND w.kind = 'FUNCTION'
     AND w.name = p.proname || '(' || pg_catalog.oidvectortypes(p.proargtypes) || ')'
WHERE CASE w.kind
        WHEN 'SCHEMA' THEN pg_catalog.has_schema_privilege(%(role)s::text, n.oid, w.privilege)
        WHEN 'TABLE' THEN pg_catalog.has_table_privilege(%(role)s::text, c.oid, w.privilege)
        WHEN 'SEQUENCE' THEN pg_catalog.has_sequence_privilege(%(role)s::text, c.oid, w.privilege)
        ELSE pg_catalog.has_function_privilege(%(role)s::text, p.oid, w.privilege) END

-- name: role_exists
SELECT FROM pg_catalog.pg_roles WHERE rolname = %(role)s

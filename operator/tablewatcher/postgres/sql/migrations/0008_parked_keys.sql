-- Keys in the order of their bytes. In that of a language they would lie in the wrong places of these indexes as soon as
-- the library that knows the order is another one, as after an upgrade of the server's system, and not be found again.
DROP INDEX tablewatcher.parked_key, tablewatcher.parked_old_key;
CREATE INDEX parked_key ON tablewatcher.parked (hash, key COLLATE "C", n);
CREATE INDEX parked_old_key ON tablewatcher.parked (hash, old_key COLLATE "C", n) WHERE old_key IS NOT NULL;

-- How the manifest that was applied last names its table: what waits goes out under the name that the manifest has, so it
-- must be told from a rename in the database when the manifest names another.
ALTER TABLE tablewatcher.watcher ADD COLUMN table_name text;

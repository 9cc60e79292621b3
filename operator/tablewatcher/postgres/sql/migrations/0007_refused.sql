-- Whether what a listener says is about an event that the sink refuses. One of an earlier version says nothing of it.
ALTER TABLE tablewatcher.progress ADD COLUMN refused boolean NOT NULL DEFAULT false;

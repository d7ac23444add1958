-- The fifth layout: very long queues.

-- Few of very many: what lies in spool files, asked for at the start, and codes that wait, asked for every few seconds.
CREATE INDEX spooled ON entry (id) WHERE spool_file IS NOT NULL;
CREATE INDEX codes ON entry (route, expires_at) WHERE place IN (0, 1) AND session_code = 1;

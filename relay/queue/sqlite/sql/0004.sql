-- The fourth layout: mail in doubt, and summaries of reports.

-- What is held and may have been delivered: few rows, asked for at each look.
CREATE INDEX doubt ON recipient (entry) WHERE state = 'held' AND in_doubt > 0;

-- What readers were told of, one row for each report: it limits how many they get in an hour.
-- `line`: NULL where the report went by itself, else what the summary is to say of it, as JSON.
-- `summary`: the entry of that summary (`entry.id`), once there is one.
CREATE TABLE told (
    reader   TEXT    NOT NULL,
    queue_id TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    line     TEXT,
    summary  INTEGER,
    PRIMARY KEY (reader, queue_id, at)
) STRICT, WITHOUT ROWID;

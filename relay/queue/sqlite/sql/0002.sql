-- The second layout: what operators do and see.

-- `entry` is made anew, because a new place comes in: 5 is to be bounced, without another attempt.
-- `wish`: what an operator wants and what waits for the end of the attempt under way: a verb, or 'reroute:ROUTE', or ''.
-- `released`: a person let it go, so no rule holds it again. `warned`: its sender was told that it waits.
-- `rerouted`: a person chose its route.
CREATE TABLE entry_2 (
    id              INTEGER PRIMARY KEY,
    queue_id        TEXT    NOT NULL UNIQUE,
    place           INTEGER NOT NULL CHECK (place BETWEEN 0 AND 5),
    route           TEXT    NOT NULL,
    priority        INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    attempts        INTEGER NOT NULL,
    session_code    INTEGER NOT NULL,
    kind            TEXT    NOT NULL,
    size            INTEGER NOT NULL,
    received_at     INTEGER NOT NULL,
    spool_file      TEXT,
    listener        TEXT    NOT NULL,
    client          TEXT    NOT NULL,
    helo            TEXT    NOT NULL,
    protocol        TEXT    NOT NULL,
    tls             TEXT,
    user            TEXT,
    reverse_path    TEXT,
    smtputf8        INTEGER NOT NULL,
    ret             TEXT,
    envid           TEXT,
    because         TEXT    NOT NULL,
    set_aside       TEXT,
    wish            TEXT    NOT NULL DEFAULT '',
    released        INTEGER NOT NULL DEFAULT 0,
    warned          INTEGER NOT NULL DEFAULT 0,
    rerouted        INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO entry_2 SELECT *, '', 0, 0, 0 FROM entry;
DROP TABLE entry;
ALTER TABLE entry_2 RENAME TO entry;

-- The walk of a message whose first attempt succeeds (born leased, then deleted) touches none of these.
CREATE INDEX due ON entry (route, priority, id, attempts) WHERE place = 0;
CREATE INDEX sleeping ON entry (route, next_attempt_at, attempts) WHERE place = 1;
CREATE INDEX lifetime ON entry (route, expires_at) WHERE place IN (0, 1);
CREATE INDEX apart ON entry (place, route, session_code, expires_at) WHERE place > 2;

CREATE TRIGGER entry_left AFTER DELETE ON entry BEGIN
    DELETE FROM content WHERE entry = old.id;
    DELETE FROM recipient WHERE entry = old.id;
END;

-- `upstream`: which was asked last, or ''. `ended_at`: when this recipient came to its end.
ALTER TABLE recipient ADD COLUMN upstream TEXT NOT NULL DEFAULT '';
ALTER TABLE recipient ADD COLUMN ended_at INTEGER;

-- What became of finished messages: one row each, written once, in the order of `entry.id`, which is `key`.
-- `recipients` is JSON: [[address, state, reply, upstream, ended_at], …]. No content, no subject, no header.
CREATE TABLE history (
    key          INTEGER PRIMARY KEY,
    queue_id     TEXT    NOT NULL,
    received_at  INTEGER NOT NULL,
    ended_at     INTEGER NOT NULL,
    listener     TEXT    NOT NULL,
    client       TEXT    NOT NULL,
    user         TEXT,
    route        TEXT    NOT NULL,
    reverse_path TEXT,
    size         INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    session_code INTEGER NOT NULL,
    kind         TEXT    NOT NULL,
    because      TEXT    NOT NULL,
    recipients   TEXT    NOT NULL
) STRICT;
CREATE INDEX history_names ON history (queue_id);

-- One row for each recipient that an attempt did not finish; none for a message whose first attempt succeeds.
-- They stay while the entry is in the queue or in the history.
CREATE TABLE attempt (
    entry    INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    upstream TEXT    NOT NULL,
    reply    TEXT    NOT NULL,
    PRIMARY KEY (entry, attempt, n)
) STRICT, WITHOUT ROWID;

-- Moments to be kept over restarts.
CREATE TABLE memory (
    topic  TEXT    NOT NULL,
    key    TEXT    NOT NULL,
    moment INTEGER NOT NULL,
    PRIMARY KEY (topic, key)
) STRICT, WITHOUT ROWID;

-- The first layout of the queue.

-- One row for each message, without content, so that listing never reads a body.
-- `id` is the order of acceptance. `place`: 0 due, 1 sleeps until next_attempt_at, 2 leased, 3 held, 4 set aside.
-- Times are microseconds since 1970, UTC. Addresses are "local@domain", always with the last "@".
CREATE TABLE entry (
    id              INTEGER PRIMARY KEY,
    queue_id        TEXT    NOT NULL UNIQUE,
    place           INTEGER NOT NULL CHECK (place BETWEEN 0 AND 4),
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
    set_aside       TEXT
) STRICT;

-- The walk of a message whose first attempt succeeds (born leased, then deleted) touches none of these.
CREATE INDEX due ON entry (route, priority, id) WHERE place = 0;
CREATE INDEX sleeping ON entry (route, next_attempt_at) WHERE place = 1;
CREATE INDEX lifetime ON entry (route, expires_at) WHERE place IN (0, 1);

-- `body` is the whole content, or only its head where a spool file has the content.
-- `padding` pushes the content of session codes off the leaf pages: see rows.py.
CREATE TABLE content (
    entry       INTEGER PRIMARY KEY,
    padding     BLOB,
    head_length INTEGER NOT NULL,
    body        BLOB NOT NULL
) STRICT;

-- One row for each recipient, `n` its place in the envelope; rows stay until the entry leaves.
-- `in_doubt_at`: the upstream of the last attempt that left it in doubt, or ''.
CREATE TABLE recipient (
    entry       INTEGER NOT NULL,
    n           INTEGER NOT NULL,
    address     TEXT    NOT NULL,
    notify      TEXT,
    orcpt       TEXT,
    state       TEXT    NOT NULL,
    last_reply  TEXT    NOT NULL,
    in_doubt    INTEGER NOT NULL,
    in_doubt_at TEXT    NOT NULL,
    PRIMARY KEY (entry, n)
) STRICT, WITHOUT ROWID;

-- An entry leaves with all that belongs to it, in one step.
CREATE TRIGGER entry_left AFTER DELETE ON entry BEGIN
    DELETE FROM content WHERE entry = old.id;
    DELETE FROM recipient WHERE entry = old.id;
END;

-- What `check` writes, to prove that a commit is possible.
CREATE TABLE pulse (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    beat INTEGER NOT NULL
) STRICT;
INSERT INTO pulse VALUES (1, 0);

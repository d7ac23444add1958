-- The layout of the queue: one, changed in place until 1.0.0. `database.LAYOUT` is its number; whoever changes anything
-- here counts it up, and a queue of another number is refused.

-- One row for each message, without content, so that listing never reads a body.
-- `id` is the order of acceptance. `place`: 0 due, 1 sleeps until next_attempt_at, 2 leased, 3 held, 4 set aside,
-- 5 is to be bounced, without another attempt.
-- Times are microseconds since 1970, UTC. Addresses are "local@domain", always with the last "@".
-- `wish`: what an operator wants and what waits for the end of the attempt under way: a verb, or 'reroute:ROUTE', or ''.
-- `released`: a person let it go, so no rule holds it again. `warned`: its sender was told that it waits.
-- `rerouted`: a person chose its route. `left_as`: as in `history`, of those recipients that have it already.
CREATE TABLE entry (
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
    rerouted        INTEGER NOT NULL DEFAULT 0,
    left_as         TEXT
) STRICT;

-- The walk of a message whose first attempt succeeds (born leased, then deleted) touches none of these.
CREATE INDEX due ON entry (route, priority, id, attempts) WHERE place = 0;
CREATE INDEX sleeping ON entry (route, next_attempt_at, attempts) WHERE place = 1;
CREATE INDEX lifetime ON entry (route, expires_at) WHERE place IN (0, 1);
CREATE INDEX apart ON entry (place, route, session_code, expires_at) WHERE place > 2;
-- Where more is due than may leave, clients take turns: the oldest of each is found without looking at the others'.
CREATE INDEX due_by_client ON entry (route, priority, client, id) WHERE place = 0;
-- Few of very many: what lies in spool files, asked for at the start, and codes that wait, asked for every few seconds.
CREATE INDEX spooled ON entry (id) WHERE spool_file IS NOT NULL;
CREATE INDEX codes ON entry (route, expires_at) WHERE place IN (0, 1) AND session_code = 1;

-- `body` is the whole content, or only its head where a spool file has the content.
-- The content of a session code has to be gone when its row is deleted. SQLite overwrites what it frees
-- (`secure_delete`), but rows are also copied from page to page when their tree is balanced, and those traces stay. So
-- `padding`, as long as a page, fills what lies on a leaf page: the content comes after it, on overflow pages, which
-- belong to this row alone and are overwritten when it is deleted.
CREATE TABLE content (
    entry       INTEGER PRIMARY KEY,
    padding     BLOB,
    head_length INTEGER NOT NULL,
    body        BLOB NOT NULL
) STRICT;

-- One row for each recipient, `n` its place in the envelope; rows stay until the entry leaves.
-- `in_doubt_at`: the upstream of the last attempt that left it in doubt, or ''. `upstream`: which was asked last, or ''.
-- `ended_at`: when this recipient came to its end. `way`: of a session code, the one upstream that may have been sent it, or ''.
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
    upstream    TEXT    NOT NULL DEFAULT '',
    ended_at    INTEGER,
    way         TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (entry, n)
) STRICT, WITHOUT ROWID;

-- What is held and may have been delivered: few rows, asked for at each look.
CREATE INDEX doubt ON recipient (entry) WHERE state = 'held' AND in_doubt > 0;

-- An entry leaves with all that belongs to it, in one step.
CREATE TRIGGER entry_left AFTER DELETE ON entry BEGIN
    DELETE FROM content WHERE entry = old.id;
    DELETE FROM recipient WHERE entry = old.id;
END;

-- What became of finished messages: one row each, written once, in the order of `entry.id`, which is `key`.
-- `recipients` is JSON: [[address, state, reply, upstream, ended_at], …]. No content.
-- `left_as` is JSON: [author, reverse-path or null, result of the sender rule or null]; NULL where nobody took it.
-- `message_id` is the field as it came. `subject`: NULL unless it is to be kept, and always of a session code.
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
    recipients   TEXT    NOT NULL,
    left_as      TEXT,
    message_id   TEXT,
    subject      TEXT
) STRICT;
CREATE INDEX history_names ON history (queue_id);
CREATE INDEX history_subjects ON history (key) WHERE subject IS NOT NULL;

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

-- Moments to be kept over restarts. `value` is what there is to know besides, as JSON or a word; '' where the moment
-- is all.
CREATE TABLE memory (
    topic  TEXT    NOT NULL,
    key    TEXT    NOT NULL,
    moment INTEGER NOT NULL,
    value  TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (topic, key)
) STRICT, WITHOUT ROWID;

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

-- What `check` writes, to prove that a commit is possible.
CREATE TABLE pulse (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    beat INTEGER NOT NULL
) STRICT;
INSERT INTO pulse VALUES (1, 0);

-- What operations and questions of the store ask a database for, by name (`relay.queue.disk`). Another database has the
-- same names, with the same values in the same order, and answers with the same columns; `SELECT *` is a row of `rows`.
-- An "IN carray(?)" takes the ids of a whole batch.

-- name: insert_entry
INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, '', ?, ?, ?);

-- A session code is padded by a page, see schema.sql.
-- name: insert_content
INSERT INTO content VALUES (?, CASE WHEN ? THEN zeroblob((SELECT page_size FROM pragma_page_size)) END, ?, ?);

-- name: insert_recipient
INSERT INTO recipient VALUES (?, ?, ?, ?, ?, 'pending', '', 0, '', '', NULL, ?);

-- A settlement may be recorded twice, when nobody knows whether the first commit reached the disk.
-- name: insert_history
INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: insert_attempt
INSERT OR REPLACE INTO attempt VALUES (?, ?, ?, ?, ?, ?);

-- name: delete_attempts
DELETE FROM attempt WHERE entry IN carray(?);

-- name: delete_history
DELETE FROM history WHERE key IN carray(?);

-- name: record_entries
INSERT OR REPLACE INTO history
SELECT id, queue_id, received_at, ?2, listener, client, user, route, reverse_path, size, attempts, session_code, kind, because,
       (SELECT json_group_array(json_array(rtrim(address, '@'), state, last_reply, upstream, ended_at) ORDER BY n)
        FROM recipient WHERE entry = id)
FROM entry WHERE id IN carray(?1);

-- name: settle_recipient
UPDATE recipient SET state = ?1, last_reply = ?2, in_doubt = ?3, in_doubt_at = ?4,
       upstream = CASE ?5 WHEN '' THEN upstream ELSE ?5 END, ended_at = ?6
WHERE entry = ?7 AND n = ?8;

-- name: change_way
UPDATE recipient SET way = ? WHERE entry = ? AND n IN carray(?);

-- name: rest_of
SELECT wish, (SELECT count(*) FROM recipient WHERE entry = id AND state = 'held') FROM entry WHERE id = ?;

-- name: move_entry
UPDATE entry SET place = ?, next_attempt_at = ?, route = ?, warned = warned OR ?, wish = ? WHERE id = ?;

-- name: select_expired
SELECT * FROM entry
WHERE place IN (0, 1) AND route = ? AND expires_at <= ?
ORDER BY expires_at, id LIMIT ?;

-- name: select_expired_codes
SELECT * FROM entry
WHERE place IN (0, 1) AND session_code = 1 AND route = ? AND expires_at <= ?
ORDER BY expires_at, id LIMIT ?;

-- name: select_to_bounce
SELECT * FROM entry WHERE place > 2 AND place = 5 AND route = ? LIMIT ?;

-- name: select_held_codes
SELECT * FROM entry WHERE place > 2 AND place = 3 AND route = ? AND session_code = 1 AND expires_at <= ? LIMIT ?;

-- name: select_contents
SELECT entry, head_length, body FROM content WHERE entry IN carray(?);

-- name: select_recipients
SELECT entry, address, notify, orcpt, state, last_reply, in_doubt, in_doubt_at, way
FROM recipient WHERE entry IN carray(?) ORDER BY entry, n;

-- name: lease
UPDATE entry SET place = 2, attempts = attempts + ? WHERE id IN carray(?);

-- name: give_back
UPDATE entry SET place = 0, attempts = attempts - ? WHERE id IN carray(?);

-- name: give_back_to_bounce
UPDATE entry SET place = 5 WHERE wish = 'bounce' AND id IN carray(?);

-- name: set_aside
UPDATE entry SET place = 4, set_aside = ?, wish = '' WHERE id = ?;

-- name: count_waiting
SELECT count(*) FROM recipient WHERE entry = ? AND state NOT IN ('held', 'delivered', 'failed', 'expired', 'cancelled');

-- What an operator does.

-- name: found_by_name
SELECT id, queue_id, place, route, attempts, session_code, spool_file, size, received_at, wish,
       (SELECT count(*) FROM recipient WHERE entry = id AND state = 'held'),
       (SELECT count(*) FROM recipient
        WHERE entry = id AND state NOT IN ('held', 'delivered', 'failed', 'expired', 'cancelled'))
FROM entry WHERE queue_id = ?;

-- name: found_wishes
SELECT id, queue_id, place, route, attempts, session_code, spool_file, size, received_at, wish,
       (SELECT count(*) FROM recipient WHERE entry = id AND state = 'held'),
       (SELECT count(*) FROM recipient
        WHERE entry = id AND state NOT IN ('held', 'delivered', 'failed', 'expired', 'cancelled'))
FROM entry WHERE wish <> '' AND place <> 5 AND id IN carray(?);

-- name: present
SELECT id FROM entry WHERE id IN carray(?);

-- name: wish
UPDATE entry SET wish = ? WHERE id = ?;

-- name: wake_entry
UPDATE entry SET place = 0, next_attempt_at = ?, wish = '', set_aside = NULL WHERE id = ?;

-- name: release_entry
UPDATE entry SET place = 0, next_attempt_at = ?, wish = '', set_aside = NULL, released = 1 WHERE id = ?;

-- name: keep_entry
UPDATE entry SET place = 3, wish = '', set_aside = NULL WHERE id = ?;

-- name: bounce_entry
UPDATE entry SET place = 5, wish = 'bounce' WHERE id = ?;

-- name: reroute_entry
UPDATE entry SET route = ?, rerouted = 1, wish = '' WHERE id = ?;

-- name: hold_recipients
UPDATE recipient SET state = 'held'
WHERE entry = ? AND state NOT IN ('held', 'delivered', 'failed', 'expired', 'cancelled');

-- name: release_recipients
UPDATE recipient SET state = 'pending' WHERE entry = ? AND state = 'held';

-- name: open_recipients
SELECT address FROM recipient
WHERE entry = ? AND state NOT IN ('delivered', 'failed', 'expired', 'cancelled') ORDER BY n;

-- name: cancel_recipients
UPDATE recipient SET state = 'cancelled', ended_at = ?
WHERE entry = ? AND state NOT IN ('delivered', 'failed', 'expired', 'cancelled');

-- name: remember
INSERT OR REPLACE INTO memory VALUES (?, ?, ?, ?);

-- name: forget_memory
DELETE FROM memory WHERE topic = ? AND key = ?;

-- name: memories
SELECT key, moment, value FROM memory WHERE topic = ? ORDER BY key;

-- name: recall
SELECT moment FROM memory WHERE topic = ? AND key = ?;

-- A settlement may be recorded twice, as above; meanwhile a summary may have been made of it.
-- name: tell
INSERT INTO told VALUES (?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING;

-- name: summarised
UPDATE told SET summary = ? WHERE reader = ? AND queue_id = ? AND at = ?;

-- name: forget_told
DELETE FROM told WHERE at < ? AND (line IS NULL OR summary IS NOT NULL);

-- name: make_due
UPDATE entry SET place = 0, next_attempt_at = ?
WHERE id IN (SELECT id FROM entry WHERE place = 1 AND route = ? AND next_attempt_at <= ? LIMIT ?);

-- Questions.

-- name: told_since
SELECT reader, at FROM told WHERE line IS NULL AND at >= ? ORDER BY reader, at;

-- name: told_waiting
SELECT reader, count(*) FROM told WHERE line IS NOT NULL AND summary IS NULL GROUP BY reader;

-- name: collected
SELECT queue_id, at, line FROM told
WHERE reader = ? AND line IS NOT NULL AND summary IS NULL ORDER BY queue_id, at LIMIT ?;

-- name: last_sleeping
SELECT max(next_attempt_at) FROM entry WHERE place = 1 AND route = ?;

-- name: first_due
SELECT next_attempt_at FROM entry WHERE place = 0 AND route = ? LIMIT 1;

-- name: first_sleeping
SELECT next_attempt_at FROM entry WHERE place = 1 AND route = ? ORDER BY next_attempt_at LIMIT 1;

-- name: any_expired
SELECT 1 FROM entry WHERE place IN (0, 1) AND route = ? AND expires_at <= ? LIMIT 1;

-- name: any_expired_code
SELECT 1 FROM entry WHERE place IN (0, 1) AND session_code = 1 AND route = ? AND expires_at <= ? LIMIT 1;

-- name: any_to_bounce
SELECT 1 FROM entry WHERE place > 2 AND place = 5 AND route = ? LIMIT 1;

-- name: any_held_code
SELECT 1 FROM entry WHERE place > 2 AND place = 3 AND route = ? AND session_code = 1 AND expires_at <= ? LIMIT 1;

-- The routes that mail waits under: each is found by one step in an index.
-- name: routes_due
WITH RECURSIVE found (name) AS (
    SELECT min(route) FROM entry WHERE place = 0
    UNION ALL SELECT (SELECT min(route) FROM entry WHERE place = 0 AND route > name) FROM found WHERE name IS NOT NULL
)
SELECT name FROM found WHERE name IS NOT NULL;

-- name: routes_sleeping
WITH RECURSIVE found (name) AS (
    SELECT min(route) FROM entry WHERE place = 1
    UNION ALL SELECT (SELECT min(route) FROM entry WHERE place = 1 AND route > name) FROM found WHERE name IS NOT NULL
)
SELECT name FROM found WHERE name IS NOT NULL;

-- name: routes_apart
WITH RECURSIVE found (name) AS (
    SELECT min(route) FROM entry WHERE place > 2 AND place = ?1
    UNION ALL SELECT (SELECT min(route) FROM entry WHERE place > 2 AND place = ?1 AND route > name) FROM found WHERE name IS NOT NULL
)
SELECT name FROM found WHERE name IS NOT NULL;

-- name: standing_due
SELECT route, count(*), count(*) FILTER (WHERE attempts > 0),
       min(id) FILTER (WHERE attempts = 0), min(id) FILTER (WHERE attempts > 0)
FROM entry WHERE place = 0 GROUP BY route;

-- name: standing_sleeping
SELECT route, count(*), count(*) FILTER (WHERE attempts > 0),
       min(id) FILTER (WHERE attempts = 0), min(id) FILTER (WHERE attempts > 0)
FROM entry WHERE place = 1 GROUP BY route;

-- name: standing_apart
SELECT place, route, count(*), min(id) FROM entry WHERE place > 2 AND place IN (3, 4) GROUP BY place, route;

-- name: standing_in_doubt
SELECT route, count(*) FROM entry
WHERE place > 2 AND place = 3 AND id IN (SELECT entry FROM recipient WHERE state = 'held' AND in_doubt > 0)
GROUP BY route;

-- name: standing_to_bounce
SELECT route, attempts > 0, received_at FROM entry WHERE place > 2 AND place = 5;

-- name: received_at
SELECT received_at FROM entry WHERE id = ?;

-- Very many are looked at a slice at a time: where one of ?2 and one more ends that begins at ?1.
-- name: slice_upwards
SELECT coalesce((SELECT id FROM entry WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2), (SELECT max(id) FROM entry WHERE id > ?1));

-- name: slice_downwards
SELECT coalesce((SELECT id FROM entry WHERE id < ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2), (SELECT min(id) FROM entry WHERE id < ?1));

-- ?1 and ?9 are the ends of the slice, ?2 is a set of places (1 << place), ?3 whether they were tried.
-- An address without a domain is kept with its "@".
-- name: list_entries
SELECT * FROM entry
WHERE id > ?1 AND id <= ?9 AND 1 << place & ?2 AND (?3 IS NULL OR (attempts > 0) = ?3)
  AND (?4 IS NULL OR route = ?4) AND (?5 IS NULL OR received_at >= ?5)
  AND (?6 IS NULL OR CASE ?6 WHEN '<>' THEN reverse_path IS NULL ELSE rtrim(reverse_path, '@') LIKE ?6 ESCAPE '\' END)
  AND (?7 IS NULL OR id IN (SELECT entry FROM recipient WHERE entry > ?1 AND entry <= ?9
       AND (address LIKE ?7 ESCAPE '\' OR address LIKE ?7 || '@' ESCAPE '\') AND rtrim(address, '@') LIKE ?7 ESCAPE '\'))
ORDER BY id LIMIT ?8;

-- name: latest_entries
SELECT * FROM entry
WHERE id < ?1 AND id >= ?9 AND 1 << place & ?2 AND (?3 IS NULL OR (attempts > 0) = ?3)
  AND (?4 IS NULL OR route = ?4) AND (?5 IS NULL OR received_at >= ?5)
  AND (?6 IS NULL OR CASE ?6 WHEN '<>' THEN reverse_path IS NULL ELSE rtrim(reverse_path, '@') LIKE ?6 ESCAPE '\' END)
  AND (?7 IS NULL OR id IN (SELECT entry FROM recipient WHERE entry < ?1 AND entry >= ?9
       AND (address LIKE ?7 ESCAPE '\' OR address LIKE ?7 || '@' ESCAPE '\') AND rtrim(address, '@') LIKE ?7 ESCAPE '\'))
ORDER BY id DESC LIMIT ?8;

-- Keys follow the time of acceptance: before a slice that is too old all of it lies further back.
-- name: any_entry_since
SELECT 1 FROM entry WHERE id < ? AND id >= ? AND received_at >= ? LIMIT 1;

-- name: any_finished_since
SELECT 1 FROM history WHERE key > ? AND key <= ? AND received_at >= ? LIMIT 1;

-- ?7 is a sieve for the text of `recipients`; what it lets through is looked at address by address, with ?6.
-- name: find_history
SELECT * FROM history
WHERE key > ?1 AND key <= ?2
  AND (?3 IS NULL OR route = ?3) AND (?4 IS NULL OR received_at >= ?4)
  AND (?5 IS NULL OR CASE ?5 WHEN '<>' THEN reverse_path IS NULL ELSE rtrim(reverse_path, '@') LIKE ?5 ESCAPE '\' END)
  AND (?6 IS NULL OR (recipients LIKE ?7 ESCAPE '\'
       AND EXISTS (SELECT 1 FROM json_each(recipients) WHERE value ->> 0 LIKE ?6 ESCAPE '\')))
ORDER BY key DESC LIMIT ?8;

-- name: history_ends
SELECT coalesce((SELECT min(key) FROM history), 0), coalesce((SELECT max(key) FROM history), 0);

-- name: names_in_queue
SELECT queue_id FROM entry WHERE queue_id >= ? AND queue_id < ? ORDER BY queue_id LIMIT 2;

-- name: names_in_history
SELECT queue_id FROM history WHERE queue_id >= ? AND queue_id < ? ORDER BY queue_id LIMIT 2;

-- name: entry_named
SELECT * FROM entry WHERE queue_id = ?;

-- name: history_named
SELECT * FROM history WHERE queue_id = ? ORDER BY key DESC LIMIT 1;

-- name: select_addressees
SELECT entry, rtrim(address, '@'), state, last_reply, upstream, ended_at
FROM recipient WHERE entry IN carray(?) ORDER BY entry, n;

-- name: select_head
SELECT substr(body, 1, head_length) FROM content WHERE entry = ?;

-- name: select_attempts
SELECT attempt, at, n, upstream, reply FROM attempt WHERE entry = ? ORDER BY attempt, n;

-- name: first_of_history
SELECT key, received_at FROM history WHERE key >= ? ORDER BY key LIMIT 1;

-- name: ended_before
SELECT key FROM history WHERE key > ? AND key < ? AND ended_at < ? ORDER BY key LIMIT ?;

-- name: beat
UPDATE pulse SET beat = beat + 1;

-- The statements of the store, by name. An "IN carray(?)" takes the ids of a whole batch.

-- name: insert_entry
INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL);

-- name: insert_content
INSERT INTO content VALUES (?, zeroblob(?), ?, ?);

-- name: insert_recipient
INSERT INTO recipient VALUES (?, ?, ?, ?, ?, 'pending', '', 0, '');

-- name: delete_entries
DELETE FROM entry WHERE id IN carray(?);

-- name: settle_recipient
UPDATE recipient SET state = ?, last_reply = ?, in_doubt = ?, in_doubt_at = ? WHERE entry = ? AND n = ?;

-- name: count_held
SELECT count(*) FROM recipient WHERE entry = ? AND state = 'held';

-- name: move_entry
UPDATE entry SET place = ?, next_attempt_at = ?, route = ? WHERE id = ?;

-- name: wake
UPDATE entry SET place = 0 WHERE place = 1 AND route = ? AND next_attempt_at <= ?;

-- name: select_due
SELECT * FROM entry WHERE place = 0 AND route = ? ORDER BY priority, id LIMIT ?;

-- name: select_expired
SELECT * FROM entry
WHERE place IN (0, 1) AND route = ? AND expires_at <= ? AND session_code >= ?
ORDER BY expires_at, id LIMIT ?;

-- name: select_contents
SELECT head_length, body, entry FROM content WHERE entry IN carray(?);

-- name: select_recipients
SELECT address, notify, orcpt, state, last_reply, in_doubt, in_doubt_at, entry
FROM recipient WHERE entry IN carray(?) ORDER BY entry, n;

-- name: lease
UPDATE entry SET place = 2, attempts = attempts + ? WHERE id IN carray(?);

-- name: give_back
UPDATE entry SET place = 0, attempts = attempts - ? WHERE id IN carray(?);

-- name: set_aside
UPDATE entry SET place = 4, set_aside = ? WHERE id = ?;

-- name: count_waiting
SELECT count(*) FROM recipient WHERE entry = ? AND state NOT IN ('held', 'delivered', 'failed', 'expired', 'cancelled');

-- name: make_due
UPDATE entry SET place = 0, next_attempt_at = ?
WHERE id IN (SELECT id FROM entry WHERE place = 1 AND next_attempt_at <= ? LIMIT ?);

-- name: make_route_due
UPDATE entry SET place = 0, next_attempt_at = ?
WHERE id IN (SELECT id FROM entry WHERE place = 1 AND route = ? AND next_attempt_at <= ? LIMIT ?);

-- name: last_sleeping
SELECT max(next_attempt_at) FROM entry WHERE place = 1;

-- name: first_due
SELECT next_attempt_at FROM entry WHERE place = 0 AND route = ? LIMIT 1;

-- name: first_sleeping
SELECT next_attempt_at FROM entry WHERE place = 1 AND route = ? ORDER BY next_attempt_at LIMIT 1;

-- name: view_due
SELECT route, count(*), min(id) FROM entry WHERE place = 0 GROUP BY route;

-- name: view_sleeping
SELECT route, count(*), min(id) FROM entry WHERE place = 1 GROUP BY route;

-- name: received_at
SELECT received_at FROM entry WHERE id = ?;

-- name: beat
UPDATE pulse SET beat = beat + 1;

-- name: take_back
UPDATE entry SET place = 0 WHERE place = 2;

-- name: lose_leases
UPDATE entry SET place = 0 WHERE place = 2 AND id NOT IN carray(?);

-- name: keep_leases
UPDATE entry SET place = 2 WHERE place <> 2 AND id IN carray(?);

-- name: found_entries
SELECT count(*), coalesce(sum(size), 0), coalesce(max(id), 0), count(*) FILTER (WHERE place = 2) FROM entry;

-- name: found_recipients
SELECT CASE WHEN place > 2 OR state = 'held' THEN 'held' WHEN attempts > 0 THEN 'deferred' ELSE 'pending' END AS waits_as,
       count(*)
FROM recipient JOIN entry ON entry.id = recipient.entry
WHERE state NOT IN ('delivered', 'failed', 'expired', 'cancelled')
GROUP BY waits_as;

-- name: spool_files
SELECT id, queue_id, place, route, priority, next_attempt_at, expires_at, attempts, spool_file
FROM entry WHERE spool_file IS NOT NULL;

-- What only SQLite needs, by name, for its part of the seam (`relay.queue.disk`).

-- Entries that leave, and whose turn it is.

-- name: delete_entries
DELETE FROM entry WHERE id IN carray(?);

-- name: wake
UPDATE entry SET place = 0
WHERE id IN (SELECT id FROM entry WHERE place = 1 AND route = ? AND next_attempt_at <= ? ORDER BY next_attempt_at LIMIT ?);

-- Whose turn it is, each found by one step in an index.
-- name: next_priority
SELECT priority FROM entry WHERE place = 0 AND route = ? AND priority > ? ORDER BY priority LIMIT 1;

-- name: first_client
SELECT client FROM entry WHERE place = 0 AND route = ? AND priority = ? ORDER BY client LIMIT 1;

-- name: next_client
SELECT client FROM entry WHERE place = 0 AND route = ? AND priority = ? AND client > ? ORDER BY client LIMIT 1;

-- name: select_due
SELECT * FROM entry WHERE place = 0 AND route = ? AND priority = ? AND client = ? ORDER BY id LIMIT ?;

-- Damage.

-- Rows that nobody can make sense of; ?1: leased ones as well. Numbers as in `found_entries`, texts that are none.
-- name: damaged_rows
SELECT id, plain(CAST(queue_id AS BLOB)), attempts FROM entry
WHERE place <> 4 AND (place <> 2 OR ?1) AND (
    NOT (
        place BETWEEN 0 AND 5 AND priority BETWEEN 0 AND 1000000 AND attempts BETWEEN 0 AND 1000000000
        AND size BETWEEN 0 AND 1 << 50 AND session_code IN (0, 1)
        AND next_attempt_at BETWEEN 0 AND 1 << 57 AND expires_at BETWEEN 0 AND 1 << 57 AND received_at BETWEEN 0 AND 1 << 57
    )
    OR NOT is_text(CAST(concat_ws(' ', queue_id, route, kind, spool_file, listener, client, helo, protocol, tls, user,
                                  reverse_path, ret, envid, because, set_aside, wish, left_as) AS BLOB))
    OR EXISTS (
        SELECT 1 FROM recipient WHERE entry = id AND NOT is_text(
            CAST(concat_ws(' ', address, notify, orcpt, state, last_reply, in_doubt_at, upstream, way) AS BLOB)
        )
    )
);

-- So that it can be shown.
-- name: make_readable
UPDATE entry SET
    queue_id = plain(CAST(queue_id AS BLOB)), route = plain(CAST(route AS BLOB)), kind = plain(CAST(kind AS BLOB)),
    spool_file = plain(CAST(spool_file AS BLOB)), listener = plain(CAST(listener AS BLOB)),
    client = plain(CAST(client AS BLOB)), helo = plain(CAST(helo AS BLOB)), protocol = plain(CAST(protocol AS BLOB)),
    tls = plain(CAST(tls AS BLOB)), user = plain(CAST(user AS BLOB)), reverse_path = plain(CAST(reverse_path AS BLOB)),
    ret = plain(CAST(ret AS BLOB)), envid = plain(CAST(envid AS BLOB)), because = plain(CAST(because AS BLOB)),
    left_as = plain(CAST(left_as AS BLOB)),
    attempts = min(max(attempts, 0), 1000000000), size = CASE WHEN size BETWEEN 0 AND 1 << 50 THEN size ELSE 0 END
WHERE id = ?;

-- name: make_recipients_readable
UPDATE recipient SET
    address = plain(CAST(address AS BLOB)), notify = plain(CAST(notify AS BLOB)), orcpt = plain(CAST(orcpt AS BLOB)),
    state = plain(CAST(state AS BLOB)), last_reply = plain(CAST(last_reply AS BLOB)),
    in_doubt_at = plain(CAST(in_doubt_at AS BLOB)), upstream = plain(CAST(upstream AS BLOB)),
    way = plain(CAST(way AS BLOB))
WHERE entry = ?;

-- Start.

-- name: found_entries
SELECT count(*), CAST(total(size) FILTER (WHERE size BETWEEN 0 AND 1 << 50) AS INTEGER), coalesce(max(id), 0), count(*) FILTER (WHERE place = 2),
       count(*) FILTER (WHERE place <> 4 AND NOT (
           place BETWEEN 0 AND 5 AND priority BETWEEN 0 AND 1000000 AND attempts BETWEEN 0 AND 1000000000
           AND size BETWEEN 0 AND 1 << 50 AND session_code IN (0, 1)
           AND next_attempt_at BETWEEN 0 AND 1 << 57 AND expires_at BETWEEN 0 AND 1 << 57 AND received_at BETWEEN 0 AND 1 << 57
       ))
FROM entry;

-- name: last_key_of_history
SELECT coalesce(max(key), 0) FROM history;

-- One pass, and no sorting: pending, deferred, held.
-- name: found_recipients
SELECT count(*) FILTER (WHERE attempts <= 0 AND state <> 'held' AND place NOT IN (3, 4)),
       count(*) FILTER (WHERE attempts > 0 AND state <> 'held' AND place NOT IN (3, 4)),
       count(*) FILTER (WHERE state = 'held' OR place IN (3, 4))
FROM recipient JOIN entry ON entry.id = recipient.entry
WHERE state NOT IN ('delivered', 'failed', 'expired', 'cancelled') AND (place <> 2 OR state = 'held' OR ?);

-- name: leased_wishes
SELECT id FROM entry WHERE place = 2 AND wish <> '';

-- Nobody knows how far the attempts came: their session codes may have arrived, by their way.
-- name: doubt_codes
UPDATE recipient SET in_doubt = max(in_doubt, 1), in_doubt_at = way
WHERE state = 'pending' AND way <> ''
  AND entry IN (SELECT id FROM entry WHERE place = 2 AND session_code = 1 AND attempts > 0);

-- name: take_back
UPDATE entry SET place = 0 WHERE place = 2;

-- What is on the disk at the start is certain; and numbers of entries may be given again.
-- name: forget_summarised
DELETE FROM told WHERE summary IS NOT NULL;

-- name: spool_files
SELECT id, queue_id, place, attempts, spool_file FROM entry WHERE spool_file IS NOT NULL;

-- After a commit of unknown fate.

-- What was told of entries that must not be there, and that their like was sent.
-- name: untell
DELETE FROM told WHERE queue_id IN (
    SELECT queue_id FROM entry WHERE id IN carray(?1) UNION ALL SELECT queue_id FROM history WHERE key IN carray(?1)
);

-- name: not_summarised
UPDATE told SET summary = NULL WHERE summary IN carray(?);

-- Leased, but by nobody: the next start takes them back. The commit that made them may have tried them as well.
-- name: withhold
UPDATE entry SET place = 2, attempts = 0 WHERE id IN carray(?);

-- name: lose_leases
UPDATE entry SET place = CASE wish WHEN 'bounce' THEN 5 ELSE 0 END, wish = CASE wish WHEN 'bounce' THEN wish ELSE '' END,
       attempts = attempts - (id NOT IN carray(?))
WHERE place = 2 AND id NOT IN carray(?);

-- name: keep_lease
UPDATE entry SET place = 2, attempts = ?, route = ?, wish = ? WHERE id = ?;

-- name: keep_recipients
UPDATE recipient SET state = CASE WHEN n IN carray(?) THEN 'pending' ELSE 'held' END
WHERE entry = ? AND state IN ('pending', 'held');

-- name: octets_not_leased
SELECT CAST(total(size) AS INTEGER) FROM entry WHERE place <> 2 AND size BETWEEN 0 AND 1 << 50;

-- A copy, in the attached database `copy`.

-- name: copy_entries
INSERT INTO copy.entry
SELECT id, queue_id, CASE WHEN place = 2 AND wish = '' THEN 0 ELSE place END, route, priority, next_attempt_at, expires_at,
       attempts, session_code, kind, size, received_at, spool_file, listener, client, helo, protocol, tls, user,
       reverse_path, smtputf8, ret, envid, because, set_aside, wish, released, warned, rerouted, left_as
FROM main.entry WHERE session_code = 0;

-- name: copy_recipients
INSERT INTO copy.recipient SELECT * FROM main.recipient WHERE entry IN (SELECT id FROM copy.entry);

-- name: copy_attempts
INSERT INTO copy.attempt SELECT * FROM main.attempt WHERE entry IN (SELECT id FROM copy.entry);

-- name: copy_memory
INSERT INTO copy.memory SELECT * FROM main.memory;

-- name: copy_told
INSERT INTO copy.told SELECT * FROM main.told;

-- name: copy_bounds
SELECT (SELECT count(*) FROM main.entry WHERE session_code <> 0),
       max(coalesce((SELECT max(id) FROM main.entry), 0), coalesce((SELECT max(key) FROM main.history), 0));

-- name: copied_entries
SELECT id, size, spool_file FROM copy.entry ORDER BY id;

-- name: copy_contents
INSERT INTO copy.content SELECT * FROM main.content WHERE entry IN carray(?);

-- name: ended_meanwhile
SELECT id FROM copy.entry
WHERE id NOT IN (SELECT entry FROM copy.content) AND id NOT IN (SELECT id FROM main.entry);

-- name: drop_copied
DELETE FROM copy.entry WHERE id IN carray(?);

-- name: drop_copied_attempts
DELETE FROM copy.attempt WHERE entry IN carray(?);

-- name: history_slice
SELECT max(key) FROM (SELECT key FROM main.history WHERE key > ? AND key <= ? ORDER BY key LIMIT ?);

-- name: copy_history
INSERT INTO copy.history
SELECT * FROM main.history WHERE key > ? AND key <= ? AND key NOT IN (SELECT id FROM copy.entry);

-- name: copy_history_attempts
INSERT OR IGNORE INTO copy.attempt
SELECT * FROM main.attempt WHERE entry > ? AND entry <= ? AND entry IN (SELECT key FROM copy.history);

-- name: count_copied
SELECT count(*), coalesce(sum(size), 0) FROM copy.entry;

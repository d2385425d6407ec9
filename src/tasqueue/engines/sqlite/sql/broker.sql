-- The broker. `, ...` repeats what stands before it, once for each row of a bulk statement.

-- name: insert
-- rows of nr, id, queue, rank, ord, until (NULL: ready), body; an id that the queue has already is skipped
INSERT INTO ns_message (nr, id, queue, rank, ord, until, body) VALUES (?, ?, ?, ?, ?, ?, ?), ...
ON CONFLICT DO NOTHING;

-- name: leases_over
-- ? queue, ? now: back to their old places
UPDATE ns_message SET until = NULL, leased = 0 WHERE queue = ? AND leased = 1 AND until <= ?;

-- name: how_many_due
-- ? queue, ? now
SELECT count(*) FROM ns_message WHERE queue = ? AND leased = 0 AND until <= ?;

-- name: make_ready
-- ? ord, ? queue, ? now: what is due, at new places behind that one, in the order of their dates
UPDATE ns_message SET until = NULL, ord = ? + due.n
FROM (SELECT nr AS which, row_number() OVER (ORDER BY until, nr) AS n FROM ns_message
      WHERE queue = ? AND leased = 0 AND until <= ?) due
WHERE nr = due.which;

-- name: first
-- ? queue, ? limit -> nr, id, body
SELECT nr, id, body FROM ns_message WHERE queue = ? AND until IS NULL ORDER BY rank, ord LIMIT ?;

-- name: lease
-- ? until, ? JSON array of nrs
UPDATE ns_message SET until = ?, leased = 1 WHERE nr IN (SELECT value FROM json_each(?));

-- name: extend
-- ? until, ? JSON array of nrs: those that are leased
UPDATE ns_message SET until = ? WHERE leased = 1 AND nr IN (SELECT value FROM json_each(?));

-- name: ack
-- ? JSON array of nrs
DELETE FROM ns_message WHERE nr IN (SELECT value FROM json_each(?));

-- name: release_now
-- ? JSON array of nrs: those that are leased, to their old places
UPDATE ns_message SET until = NULL, leased = 0 WHERE leased = 1 AND nr IN (SELECT value FROM json_each(?));

-- name: release_later
-- ? date, ? JSON array of nrs: those that are leased
UPDATE ns_message SET until = ?, leased = 0 WHERE leased = 1 AND nr IN (SELECT value FROM json_each(?));

-- name: place_of
-- ? queue, ? id -> rank, ord; nothing when it is not ready
SELECT rank, ord FROM ns_message WHERE queue = ? AND id = ? AND until IS NULL;

-- name: first_messages
-- ? queue, ? limit -> id, body, rank
SELECT id, body, rank FROM ns_message WHERE queue = ? AND until IS NULL ORDER BY rank, ord LIMIT ?;

-- name: next_messages
-- ? queue, ? rank, ? ord, ? limit -> id, body, rank: behind that place
SELECT id, body, rank FROM ns_message WHERE queue = ? AND until IS NULL AND (rank, ord) > (?, ?)
ORDER BY rank, ord LIMIT ?;

-- name: work_in
-- ? queue -> whether something is ready
SELECT EXISTS (SELECT 1 FROM ns_message WHERE queue = ? AND until IS NULL);

-- name: next_due
-- ? queue -> when the first is due or its lease ends
SELECT min(until) FROM ns_message WHERE queue = ? AND until IS NOT NULL;

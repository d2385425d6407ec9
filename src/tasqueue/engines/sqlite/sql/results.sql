-- The results. `, ...` repeats what stands before it, once for each row of a bulk statement.

-- name: get
-- ? key, ? now -> value, revision
SELECT value, revision FROM ns_value WHERE key = ? AND (gone_at IS NULL OR gone_at > ?);

-- name: forget
-- ? now: a few of those that have expired
DELETE FROM ns_value WHERE nr IN (SELECT nr FROM ns_value WHERE gone_at <= ? ORDER BY gone_at LIMIT 10);

-- name: delete_expired
-- ? key, ? now
DELETE FROM ns_value WHERE key = ? AND gone_at <= ?;

-- name: insert
-- ? key, ? value, ? revision, ? gone_at; no row when the key exists
INSERT INTO ns_value (key, value, revision, gone_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: update
-- ? value, ? revision, ? gone_at, ? key, ? expected revision, ? now; no row when it has another
UPDATE ns_value SET value = ?, revision = ?, gone_at = ? WHERE key = ? AND revision = ? AND (gone_at IS NULL OR gone_at > ?);

-- name: delete
-- ? key
DELETE FROM ns_value WHERE key = ?;

-- name: index_add
-- rows of index, id, time, nr: put in, or moved
INSERT INTO ns_entry (name, id, at, nr) VALUES (?, ?, ?, ?), ...
ON CONFLICT (name, id) DO UPDATE SET at = excluded.at, nr = excluded.nr;

-- name: index_place
-- ? index, ? id -> time, nr
SELECT at, nr FROM ns_entry WHERE name = ? AND id = ?;

-- name: index_newest
-- ? index, ? limit -> id
SELECT id FROM ns_entry WHERE name = ? ORDER BY at DESC, nr DESC LIMIT ?;

-- name: index_before
-- ? index, ? time, ? nr, ? limit -> id
SELECT id FROM ns_entry WHERE name = ? AND (at, nr) < (?, ?) ORDER BY at DESC, nr DESC LIMIT ?;

-- name: index_remove
-- ? index, ? id
DELETE FROM ns_entry WHERE name = ? AND id = ?;

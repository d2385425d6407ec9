-- Chains and groups.

-- name: link
-- ? key, ? now -> n, status, pos, generation, on_success, on_error, result_ttl, failed_ttl, max_prev
SELECT n, status, pos, generation, on_success, on_error, result_ttl, failed_ttl, max_prev
FROM ns_link WHERE key = ? AND (gone_at IS NULL OR gone_at > ?);

-- name: link_outlived
-- ? key, ? now -> 1 when it has outlived its retention
SELECT 1 FROM ns_link WHERE key = ? AND gone_at <= ?;

-- name: jobs_of_link
-- ? key -> seq
SELECT seq FROM ns_job WHERE link = ? AND link <> '';

-- name: member_ended
-- rows of link, pos, status, result
INSERT OR REPLACE INTO ns_member (link, pos, status, result) VALUES (?, ?, ?, ?), ...;

-- name: members_ended
-- ? key -> how many, how many of them successful, bytes saved
SELECT count(*), coalesce(sum(status = 'successful'), 0), coalesce(sum(length(result)), 0) FROM ns_member WHERE link = ?;

-- name: members
-- ? key -> pos, status
SELECT pos, status FROM ns_member WHERE link = ?;

-- name: member_results
-- ? key, ? from pos, ? limit -> pos, result
SELECT pos, result FROM ns_member WHERE link = ? AND pos >= ? ORDER BY pos LIMIT ?;

-- name: member_reopened
-- ? key, ? pos
DELETE FROM ns_member WHERE link = ? AND pos = ?;

-- name: link_ended
-- ? status, ? ended_at, ? gone_at, ? key
UPDATE ns_link SET status = ?, ended_at = ?, gone_at = ? WHERE key = ?;

-- name: link_revived
-- ? key
UPDATE ns_link SET status = 'processing', ended_at = NULL, gone_at = NULL, generation = generation + 1 WHERE key = ?;

-- name: chain_moved
-- ? pos, ? key
UPDATE ns_link SET pos = ? WHERE key = ?;

-- name: step
-- ? key, ? pos -> seq, state (0 held back; 1 says no more than that it is not), due
SELECT seq, state, due FROM ns_job WHERE link = ? AND link <> '' AND pos = ?;

-- name: step_id
-- ? key, ? pos -> id
SELECT id FROM ns_job WHERE link = ? AND link <> '' AND pos = ?;

-- name: step_prev
-- ? prev, ? seq
UPDATE ns_job SET prev = ? WHERE seq = ?;

-- name: step_ready
-- ? prev, ? ord, ? seq: it was held back
UPDATE ns_job SET prev = ?, state = 1, due = NULL, ord = ? WHERE seq = ?;

-- name: start_later
-- ? due, ? seq: it was held back
UPDATE ns_job SET state = 2, due = ? WHERE seq = ?;

-- name: held_of_link
-- ? key -> seq
SELECT seq FROM ns_job WHERE link = ? AND link <> '' AND state = 0;

-- name: delete_link
-- ? key
DELETE FROM ns_link WHERE key = ?;

-- name: delete_members
-- ? key
DELETE FROM ns_member WHERE link = ?;

-- Ending what is held, or putting it back.

-- name: holds
-- ? JSON array of seqs, ? nr -> seq, claim
SELECT r.seq, r.claim FROM json_each(?) s CROSS JOIN ns_running r ON r.seq = s.value WHERE r.worker = ?;

-- name: gone_worker
-- ? id -> nr of the last worker of that name
SELECT nr FROM ns_worker WHERE id = ? ORDER BY nr DESC LIMIT 1;

-- name: seq_of
-- ? id
SELECT seq FROM ns_job WHERE id = ?;

-- name: token_of
-- ? seq -> state, and the worker and claim that ended it or put it back
SELECT v.state, coalesce(o.worker, j.worker), coalesce(o.claim, j.claim)
FROM ns_job j JOIN ns_row v ON v.seq = j.seq LEFT JOIN ns_outcome o ON o.seq = j.seq WHERE j.seq = ?;

-- name: let_go
-- ? JSON array of seqs
DELETE FROM ns_running WHERE seq IN (SELECT value FROM json_each(?));

-- name: end
-- ? state, ? num, ? ended_at, ? gone_at, rows of seq, tail, result, ? nr, ? claim -> row count: the token is good for so many
INSERT INTO ns_outcome (seq, state, num, ended_at, gone_at, worker, claim, at, tail, result)
SELECT v.column1, ?, ?, ?, ?, r.worker, r.claim, r.at, v.column2, v.column3
FROM (VALUES (?, ?, ?), ...) v CROSS JOIN ns_running r ON r.seq = v.column1 WHERE r.worker = ? AND r.claim = ?;

-- name: cancelled
-- ? seq, ? num, ? ended_at, ? gone_at: nobody held it
INSERT INTO ns_outcome (seq, state, num, ended_at, gone_at) VALUES (?, 6, ?, ?, ?);

-- name: put_back
-- ?1 state, ?2 due, ?3 ord (NULL: the old one), ?4 tail (NULL: the old one), ?5 nr, ?6 claim, ?7 seq
UPDATE ns_job SET state = ?1, due = ?2, ord = coalesce(?3, ord), tail = coalesce(?4, tail), worker = ?5, claim = ?6,
                  at = (SELECT at FROM ns_running r WHERE r.seq = ?7), progress = NULL
WHERE seq = ?7;

-- name: died
-- ? died_with, ? death_cause, ? seq
UPDATE ns_job SET deaths = deaths + 1, died_with = ?, death_cause = ? WHERE seq = ?;

-- name: park
-- ?1 now, ?2 delay, ?3 key, ?4 reason, ?5 tail (NULL: the old one), ?6 nr, ?7 claim, ?8 seq
UPDATE ns_job SET state = 7, parked_at = coalesce(parked_at, ?1), due = coalesce(parked_at, ?1) + ?2, park_key = ?3,
                  parked = ?4, tail = coalesce(?5, tail), worker = ?6, claim = ?7,
                  at = (SELECT at FROM ns_running r WHERE r.seq = ?8), progress = NULL
WHERE seq = ?8;

-- name: asked_any
SELECT EXISTS (SELECT 1 FROM ns_asked);

-- name: answered
-- ? JSON array of seqs
DELETE FROM ns_asked WHERE seq IN (SELECT value FROM json_each(?));

-- Cancel, reopen, delete, prune, pause.

-- name: place_of
-- ? id, ? now -> seq, state, link, pos, queue, prio, ord, ended_at
SELECT v.seq, v.state, v.link, v.pos, v.queue, v.priority, j.ord, v.ended_at
FROM ns_row v JOIN ns_job j ON j.seq = v.seq WHERE v.id = ? AND (v.gone_at IS NULL OR v.gone_at > ?);

-- name: open_of_link
-- ? key -> id of each job that has not ended
SELECT id FROM ns_row WHERE link = ? AND link <> '' AND state NOT IN (4, 5, 6) ORDER BY pos;

-- name: leave_place
-- ? queue, ? prio, ? ord
DELETE FROM ns_ready WHERE queue = ? AND prio = ? AND ord = ?;

-- name: cancel_idle
-- ? seq: it was held back, due or parked
UPDATE ns_job SET state = 1, due = NULL, park_key = '', parked = '' WHERE seq = ?;

-- name: ask
-- ? seq
INSERT OR IGNORE INTO ns_asked (seq) VALUES (?);

-- name: reopen
-- ? state (1 ready, 0 held back), ? ord, ? tail, ? seq
UPDATE ns_job SET state = ?, due = NULL, ord = ?, tail = ?, deaths = 0, died_with = '', death_cause = '', parked_at = NULL,
                  worker = NULL, claim = NULL, at = NULL, progress = NULL
WHERE seq = ?;

-- name: outcome_forgotten
-- ? seq
DELETE FROM ns_outcome WHERE seq = ?;

-- name: forget_jobs
-- ? JSON array of seqs
DELETE FROM ns_job WHERE seq IN (SELECT value FROM json_each(?));

-- name: forget_outcomes
-- ? JSON array of seqs
DELETE FROM ns_outcome WHERE seq IN (SELECT value FROM json_each(?));

-- name: forget_places
-- ? JSON array of seqs
DELETE FROM ns_ready
WHERE (queue, prio, ord) IN (SELECT queue, prio, ord FROM ns_job WHERE seq IN (SELECT value FROM json_each(?)));

-- name: outlived
-- ? now, ? limit -> seq
SELECT seq FROM ns_outcome WHERE gone_at IS NOT NULL AND gone_at <= ? ORDER BY gone_at LIMIT ?;

-- name: links_outlived
-- ? now, ? limit -> key
SELECT key FROM ns_link WHERE gone_at IS NOT NULL AND gone_at <= ? ORDER BY gone_at LIMIT ?;

-- name: forget_workers
-- The names of those long gone; a job's tail knows who ran it.
DELETE FROM ns_worker WHERE deadline IS NULL AND nr < (SELECT max(nr) FROM ns_worker) - 10000;

-- name: pause
-- ? queue, ? reason, ? by, ? at
INSERT OR REPLACE INTO ns_pause (queue, reason, by, at) VALUES (?, ?, ?, ?);

-- name: resume
-- ? queue
DELETE FROM ns_pause WHERE queue = ?;

-- name: drain
-- ? worker id -> row count 0: unknown
UPDATE ns_worker SET drain = 1 WHERE id = ? AND deadline IS NOT NULL;

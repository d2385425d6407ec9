-- Workers, and what they take. A JSON array of seqs is one parameter, whatever its length.

-- name: worker
-- ? id -> nr, last claim, deadline; nothing when it is gone
SELECT nr, last, deadline FROM ns_worker WHERE id = ? AND deadline IS NOT NULL;

-- name: register
-- ? id, ? deadline, ? lease, ? info
INSERT INTO ns_worker (id, deadline, lease, info) VALUES (?, ?, ?, ?)
ON CONFLICT (id) WHERE deadline IS NOT NULL DO UPDATE SET deadline = excluded.deadline, lease = excluded.lease, info = excluded.info;

-- name: announce
-- ? task, ? queue
INSERT INTO ns_task (name, queue) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET queue = excluded.queue WHERE queue <> excluded.queue;

-- name: park_keys
-- -> each key under which a job is parked
SELECT DISTINCT park_key FROM ns_job WHERE state = 7;

-- name: parked_under
-- ? key -> seq
SELECT seq FROM ns_job WHERE state = 7 AND park_key = ?;

-- name: beat
-- ? deadline, ? lease, ? info (empty: keep what is stored), ? nr
UPDATE ns_worker SET deadline = ?, lease = ?, info = coalesce(nullif(?, x''), info) WHERE nr = ?;

-- name: progress
-- ? bytes, ? id, ? nr, ? claim: dropped unless the token holds the job
UPDATE ns_job SET progress = ? WHERE id = ? AND EXISTS (
    SELECT 1 FROM ns_running r WHERE r.seq = ns_job.seq AND r.worker = ? AND r.claim = ?);

-- name: asked_of
-- ? nr -> ids that it holds and that somebody asked to cancel
SELECT j.id FROM ns_asked a CROSS JOIN ns_running r ON r.seq = a.seq CROSS JOIN ns_job j ON j.seq = a.seq
WHERE r.worker = ?;

-- name: asked_among
-- ? JSON array of seqs -> those that somebody asked to cancel
SELECT seq FROM ns_asked WHERE seq IN (SELECT value FROM json_each(?));

-- name: draining
-- ? nr -> 1: somebody asked it to drain
SELECT drain FROM ns_worker WHERE nr = ?;

-- name: paused_queues
SELECT queue FROM ns_pause;

-- name: next_due
-- ? queue
SELECT min(due) FROM ns_job WHERE state = 2 AND queue = ?;

-- name: due_in
-- ? queue, ? now, ? limit -> seq, state
SELECT seq, 2 FROM ns_job WHERE state = 2 AND queue = ? AND due <= ? ORDER BY due, seq LIMIT ?;

-- name: due_anywhere
-- ? now, ? limit -> seq, state (2 due, 7 parked and its time is over)
SELECT seq, state FROM ns_job WHERE state IN (2, 7) AND due <= ? ORDER BY due, seq LIMIT ?;

-- name: next_due_anywhere
-- -> the earliest date of a job, the earliest tick of a schedule
SELECT (SELECT min(due) FROM ns_job WHERE state IN (2, 7)), (SELECT min(next_at) FROM ns_schedule WHERE NOT paused);

-- name: make_ready
-- ? ord, ? seq: at a new place
UPDATE ns_job SET state = 1, due = NULL, ord = ? WHERE seq = ?;

-- name: unpark
-- ? seq: at its old place
UPDATE ns_job SET state = 1, due = NULL, park_key = '', parked = '', progress = NULL WHERE seq = ?;

-- name: into_line
-- ? JSON array of seqs
INSERT INTO ns_ready (queue, prio, ord, seq)
SELECT j.queue, j.prio, j.ord, j.seq FROM json_each(?) s CROSS JOIN ns_job j ON j.seq = s.value;

-- name: read_ready
-- ? claim number, ? queue, ? limit -> the fields of core.record.Lease, in its order
SELECT j.id, j.queue, ?, j.spec, j.tail, j.prev, j.deaths, j.died_with, j.death_cause, j.parked_at, j.link, j.pos, j.seq
FROM ns_ready r CROSS JOIN ns_job j ON j.seq = r.seq WHERE r.queue = ? ORDER BY r.prio DESC, r.ord LIMIT ?;

-- name: take_ready
-- ? nr, ? claim number, ? now, ? queue, ? limit: the same ones
INSERT INTO ns_running (seq, worker, claim, at)
SELECT seq, ?, ?, ? FROM ns_ready WHERE queue = ? ORDER BY prio DESC, ord LIMIT ?;

-- name: last_ready
-- ? queue, ? limit - 1 -> prio, ord of the last that a claim takes
SELECT prio, ord FROM ns_ready WHERE queue = ? ORDER BY prio DESC, ord LIMIT 1 OFFSET ?;

-- name: leave_line
-- ? queue, ? prio, ? ord: all up to this place within the priority
DELETE FROM ns_ready WHERE queue = ? AND prio = ? AND ord <= ?;

-- name: leave_line_above
-- ? queue, ? prio: all of higher priorities
DELETE FROM ns_ready WHERE queue = ? AND prio > ?;

-- name: leave_line_all
-- ? queue
DELETE FROM ns_ready WHERE queue = ?;

-- name: claimed
-- ? number, ? nr
UPDATE ns_worker SET last = ? WHERE nr = ?;

-- name: last_reclaim
-- -> when somebody last looked
SELECT reclaimed_at FROM ns_store;

-- name: reclaim_now
-- ? now
UPDATE ns_store SET reclaimed_at = ?;

-- name: extend_all
-- ? now: every deadline one lease from now
UPDATE ns_worker SET deadline = ? + lease WHERE deadline IS NOT NULL;

-- name: expired
-- ? now -> nr, id, deadline
SELECT nr, id, deadline FROM ns_worker WHERE deadline IS NOT NULL AND deadline < ? ORDER BY nr;

-- name: held_by
-- ? nr -> seq
SELECT seq FROM ns_running WHERE worker = ?;

-- name: read_held
-- ? claim number, ? nr, ? claim number -> the fields of core.record.Lease, in claim order
SELECT j.id, j.queue, ?, j.spec, j.tail, j.prev, j.deaths, j.died_with, j.death_cause, j.parked_at, j.link, j.pos, j.seq
FROM ns_running r CROSS JOIN ns_job j ON j.seq = r.seq WHERE r.worker = ? AND r.claim = ? ORDER BY j.queue, j.prio DESC, j.ord;

-- name: count_deaths
-- ? died_with, ? death_cause, ? JSON array of seqs
UPDATE ns_job SET deaths = deaths + 1, died_with = ?, death_cause = ? WHERE seq IN (SELECT value FROM json_each(?));

-- name: forget_tokens
-- ? JSON array of seqs: a repeated settle under an earlier token counts no more
UPDATE ns_job SET worker = NULL, claim = NULL, at = NULL, progress = NULL WHERE seq IN (SELECT value FROM json_each(?));

-- name: worker_gone
-- ? nr
UPDATE ns_worker SET deadline = NULL, drain = 0, info = x'' WHERE nr = ?;

-- Storing what is new. `, ...` repeats what stands before it, once for each row of a bulk statement.

-- name: insert_jobs
-- rows of seq, id, queue, prio, ord, state, due, task, link, pos, spec, prev; ids that exist are skipped
INSERT INTO ns_job (seq, id, queue, prio, ord, state, due, task, link, pos, spec, prev)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?), ...
ON CONFLICT DO NOTHING;

-- name: insert_alike
-- ? queue, ? prio, ? task, rows of seq, id, spec: ready ones that stand alone. What is bound once costs nothing for each row
INSERT INTO ns_job (seq, id, queue, prio, ord, state, task, spec)
SELECT column1, column2, ?, ?, column1, 1, ?, column3 FROM (VALUES (?, ?, ?), ...) WHERE true
ON CONFLICT DO NOTHING;

-- name: outlived_id
-- ? id, ? now -> seq of the job of that id that has outlived its retention
SELECT j.seq FROM ns_job j JOIN ns_outcome o ON o.seq = j.seq WHERE j.id = ? AND o.gone_at <= ?;

-- name: ready_new
-- ? after this seq, ? up to this one: those that are ready take their places
INSERT INTO ns_ready (queue, prio, ord, seq)
SELECT queue, prio, ord, seq FROM ns_job WHERE seq > ? AND seq <= ? AND state = 1;

-- name: insert_link
-- ? key, ? n, ? on_success, ? on_error, ? result_ttl, ? failed_ttl, ? max_prev -> row count 0: there is one already
INSERT INTO ns_link (key, n, on_success, on_error, result_ttl, failed_ttl, max_prev) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO NOTHING;

-- name: get_schedule
-- ? id -> the columns of core.record.Schedule
SELECT id, schedule, task, queue, priority, job, anchor, next_at, last_at, paused FROM ns_schedule WHERE id = ?;

-- name: put_schedule
-- the columns of core.record.Schedule
INSERT OR REPLACE INTO ns_schedule (id, schedule, task, queue, priority, job, anchor, next_at, last_at, paused)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: delete_schedule
-- ? id
DELETE FROM ns_schedule WHERE id = ?;

-- name: advance_schedule
-- ? next_at, ? last_at, ? id, ? expect -> row count 0: somebody else has fired this tick
UPDATE ns_schedule SET next_at = ?, last_at = ? WHERE id = ? AND next_at = ?;

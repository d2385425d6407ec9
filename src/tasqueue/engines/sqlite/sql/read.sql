-- What readers ask. Rows are those of ns_row without seq: the fields of core.record.Row.

-- name: get
-- ? id, ? now -> row
SELECT id, queue, state, spec, tail, prev, result, priority, due, worker, claimed_at, ended_at, deaths, parked, progress, task,
       link, pos
FROM ns_row WHERE id = ? AND (gone_at IS NULL OR gone_at > ?);

-- name: rows
-- ? JSON array of seqs -> rows, in its order
SELECT v.id, v.queue, v.state, v.spec, v.tail, v.prev, v.result, v.priority, v.due, v.worker, v.claimed_at, v.ended_at, v.deaths,
       v.parked, v.progress, v.task, v.link, v.pos
FROM json_each(?) s CROSS JOIN ns_row v ON v.seq = s.value ORDER BY s.key;

-- name: get_link
-- ? key, ? now -> n, status, pos, generation
SELECT n, status, pos, generation FROM ns_link WHERE key = ? AND (gone_at IS NULL OR gone_at > ?);

-- name: place_in_line
-- ? id -> queue, prio, ord; nothing when it is not ready
SELECT r.queue, r.prio, r.ord
FROM ns_job j JOIN ns_ready r ON r.queue = j.queue AND r.prio = j.prio AND r.ord = j.ord WHERE j.id = ?;

-- name: pending
-- ?1 queue, ?2 prio, ?3 ord, ?4 limit -> seq: behind that place
SELECT seq FROM (
    SELECT * FROM (SELECT * FROM ns_ready WHERE queue = ?1 AND prio = ?2 AND ord > ?3 ORDER BY ord LIMIT ?4)
    UNION ALL
    SELECT * FROM (SELECT * FROM ns_ready WHERE queue = ?1 AND prio < ?2 ORDER BY prio DESC, ord LIMIT ?4)
) ORDER BY prio DESC, ord LIMIT ?4;

-- name: ended_place
-- ? id, ? state -> num, seq
SELECT o.num, o.seq FROM ns_job j JOIN ns_outcome o ON o.seq = j.seq WHERE j.id = ? AND o.state = ?;

-- name: ended_4
-- ?1 num, ?2 seq, ?3 now, ?4 limit -> id of those that ended before that place, newest first
SELECT j.id FROM ns_outcome o CROSS JOIN ns_job j ON j.seq = o.seq
WHERE o.state = 4 AND o.num <= ?1 AND (o.num < ?1 OR o.seq < ?2) AND (o.gone_at IS NULL OR o.gone_at > ?3)
ORDER BY o.num DESC, o.seq DESC LIMIT ?4;

-- name: ended_5
-- the same for the failed ones
SELECT j.id FROM ns_outcome o CROSS JOIN ns_job j ON j.seq = o.seq
WHERE o.state = 5 AND o.num <= ?1 AND (o.num < ?1 OR o.seq < ?2) AND (o.gone_at IS NULL OR o.gone_at > ?3)
ORDER BY o.num DESC, o.seq DESC LIMIT ?4;

-- name: ended_6
-- the same for the cancelled ones
SELECT j.id FROM ns_outcome o CROSS JOIN ns_job j ON j.seq = o.seq
WHERE o.state = 6 AND o.num <= ?1 AND (o.num < ?1 OR o.seq < ?2) AND (o.gone_at IS NULL OR o.gone_at > ?3)
ORDER BY o.num DESC, o.seq DESC LIMIT ?4;

-- name: newest
-- ?1 before this seq, ?2 how many to look at, ?3 queue, ?4 task (NULL: any), ?5 now -> seq, whether it fits; newest first
SELECT seq, (?3 IS NULL OR queue = ?3) AND (?4 IS NULL OR task = ?4)
            AND NOT EXISTS (SELECT 1 FROM ns_outcome o WHERE o.seq = j.seq AND o.gone_at <= ?5)
FROM ns_job j WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2;

-- name: newest_1
-- the same for the ready ones
SELECT j.seq, (?3 IS NULL OR j.queue = ?3) AND (?4 IS NULL OR j.task = ?4), ?5
FROM (SELECT seq FROM ns_ready WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2) r CROSS JOIN ns_job j ON j.seq = r.seq;

-- name: backlog
-- ? n -> 1 when there are more ready ones than n
SELECT 1 FROM ns_ready LIMIT 1 OFFSET ?;

-- name: newest_of_backlog
-- the same for the ready ones, by looking through all jobs
SELECT seq, (?3 IS NULL OR queue = ?3) AND (?4 IS NULL OR task = ?4) AND state = 1
            AND NOT EXISTS (SELECT 1 FROM ns_outcome o WHERE o.seq = j.seq)
            AND NOT EXISTS (SELECT 1 FROM ns_running r WHERE r.seq = j.seq), ?5
FROM ns_job j WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2;

-- name: newest_3
-- the same for the running ones
SELECT j.seq, (?3 IS NULL OR j.queue = ?3) AND (?4 IS NULL OR j.task = ?4), ?5
FROM (SELECT seq FROM ns_running WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2) r CROSS JOIN ns_job j ON j.seq = r.seq;

-- name: newest_idle
-- the same for those of state ?6: held back, due, parked
SELECT j.seq, (?3 IS NULL OR j.queue = ?3) AND (?4 IS NULL OR j.task = ?4), ?5
FROM (SELECT seq FROM ns_job INDEXED BY ns_job_idle
      WHERE state IN (0, 2, 7) AND state = ?6 AND seq < ?1 ORDER BY seq DESC LIMIT ?2) r CROSS JOIN ns_job j ON j.seq = r.seq;

-- name: newest_4
-- the same for the successful ones, which are most of all
SELECT j.seq, (?3 IS NULL OR j.queue = ?3) AND (?4 IS NULL OR j.task = ?4) AND (o.gone_at IS NULL OR o.gone_at > ?5)
FROM (SELECT seq FROM ns_outcome NOT INDEXED WHERE state = 4 AND seq < ?1 ORDER BY seq DESC LIMIT ?2) r
CROSS JOIN ns_outcome o ON o.seq = r.seq CROSS JOIN ns_job j ON j.seq = r.seq;

-- name: newest_5
-- the same for the failed ones
SELECT j.seq, (?3 IS NULL OR j.queue = ?3) AND (?4 IS NULL OR j.task = ?4) AND (o.gone_at IS NULL OR o.gone_at > ?5)
FROM (SELECT seq FROM ns_outcome INDEXED BY ns_outcome_failed WHERE state = 5 AND seq < ?1 ORDER BY seq DESC LIMIT ?2) r
CROSS JOIN ns_outcome o ON o.seq = r.seq CROSS JOIN ns_job j ON j.seq = r.seq;

-- name: newest_6
-- the same for the cancelled ones
SELECT j.seq, (?3 IS NULL OR j.queue = ?3) AND (?4 IS NULL OR j.task = ?4) AND (o.gone_at IS NULL OR o.gone_at > ?5)
FROM (SELECT seq FROM ns_outcome INDEXED BY ns_outcome_cancelled WHERE state = 6 AND seq < ?1 ORDER BY seq DESC LIMIT ?2) r
CROSS JOIN ns_outcome o ON o.seq = r.seq CROSS JOIN ns_job j ON j.seq = r.seq;

-- name: seq_of_id
-- ? id
SELECT seq FROM ns_job WHERE id = ?;

-- name: count_waiting
-- -> queue, state, how many
SELECT queue, 1, count(*) FROM ns_ready GROUP BY queue
UNION ALL SELECT queue, state, count(*) FROM ns_job WHERE state IN (0, 2, 7) GROUP BY queue, state
UNION ALL SELECT j.queue, 3, count(*) FROM ns_running r CROSS JOIN ns_job j ON j.seq = r.seq GROUP BY j.queue;

-- name: count_ended
-- -> successful, failed, cancelled; those included that have outlived their retention
SELECT (SELECT count(*) FROM ns_outcome WHERE state = 4), (SELECT count(*) FROM ns_outcome WHERE state = 5),
       (SELECT count(*) FROM ns_outcome WHERE state = 6);

-- name: count_outlived
-- ? now -> state, how many
SELECT state, count(*) FROM ns_outcome WHERE gone_at IS NOT NULL AND gone_at <= ? GROUP BY state;

-- name: workers
-- -> id, deadline, info, held
SELECT id, deadline, info, (SELECT count(*) FROM ns_running r WHERE r.worker = nr)
FROM ns_worker WHERE deadline IS NOT NULL ORDER BY id;

-- name: pauses
-- -> queue, reason, by, at
SELECT queue, reason, by, at FROM ns_pause ORDER BY queue;

-- name: tasks
-- -> name, queue
SELECT name, queue FROM ns_task ORDER BY name;

-- name: schedules
-- ? limit -> the columns of core.record.Schedule, by id
SELECT id, schedule, task, queue, priority, job, anchor, next_at, last_at, paused FROM ns_schedule ORDER BY id LIMIT ?;

-- name: schedules_due
-- ? now, ? limit -> the same, earliest first
SELECT id, schedule, task, queue, priority, job, anchor, next_at, last_at, paused FROM ns_schedule
WHERE next_at <= ? AND NOT paused ORDER BY next_at, id LIMIT ?;

-- name: job_open
-- ? id -> 1 when it exists and has not ended
SELECT 1 FROM ns_job j WHERE j.id = ? AND NOT EXISTS (SELECT 1 FROM ns_outcome o WHERE o.seq = j.seq);

-- name: link_open
-- ? key -> the same
SELECT 1 FROM ns_link WHERE key = ? AND ended_at IS NULL;

-- name: work_in
-- ? queue -> whether a claim would get something
SELECT EXISTS (SELECT 1 FROM ns_ready WHERE queue = asked.queue)
   AND NOT EXISTS (SELECT 1 FROM ns_pause WHERE queue = asked.queue)
FROM (SELECT ? AS queue) asked;

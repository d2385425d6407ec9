-- Schema 0 had one wide table for jobs, whose rows changed their state in place; no chains, groups, pauses or tasks; and no version.
-- What a worker holds is offered again: its incarnation does not outlive the upgrade.
DROP INDEX IF EXISTS ns_ready;
DROP INDEX IF EXISTS ns_due;
DROP INDEX IF EXISTS ns_running;
DROP INDEX IF EXISTS ns_ended;
DROP INDEX IF EXISTS ns_gone;
ALTER TABLE ns_job RENAME TO ns_old_job;
ALTER TABLE ns_schedule RENAME TO ns_old_schedule;
DROP TABLE ns_worker;
DROP TABLE ns_counter;

-- schema

INSERT INTO ns_job (seq, id, queue, prio, ord, state, due, task, deaths, spec, tail)
SELECT seq, id, queue, prio, ord, CASE WHEN state = 2 THEN 2 ELSE 1 END, CASE WHEN state = 2 THEN due END, task, deaths, spec,
       coalesce(tail, x'')
FROM ns_old_job;
INSERT INTO ns_ready (queue, prio, ord, seq) SELECT queue, prio, ord, seq FROM ns_old_job WHERE state IN (1, 3);
INSERT INTO ns_outcome (seq, state, num, ended_at, gone_at, result)
SELECT seq, state, row_number() OVER (ORDER BY ended_at, seq), ended_at, gone_at, result FROM ns_old_job WHERE state IN (4, 5, 6);
INSERT INTO ns_schedule (id, schedule, task, queue, priority, job, anchor, next_at, last_at)
SELECT id, schedule, task, queue, prio, job, anchor, next_at, last_at FROM ns_old_schedule;
UPDATE ns_store SET place = (SELECT coalesce(max(max(seq), max(ord)), 0) FROM ns_old_job);
DROP TABLE ns_old_job;
DROP TABLE ns_old_schedule;

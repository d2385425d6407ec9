-- Schema 1. Applied to a file (or namespace) that has none; `ns_` stands for the namespace's prefix.
--
-- Where a job is, is told by the tables that name it, so that the wide row in ns_job is written once and not again by the usual
-- claim and settle (measured: 1.8 times the jobs per second of one table whose rows change their state).
--
--   outcome names it   it has ended: outcome.state 4 successful, 5 failed, 6 cancelled (job.state is 1)
--   running names it   it is claimed; (worker, claim) is the fencing token           (job.state is 1)
--   ready names it     it can be claimed, by (queue, prio DESC, ord)                 (job.state is 1)
--   none of them       job.state: 0 held back, 2 due later, 7 parked
--
-- Times are UNIX milliseconds. ns_store.place is the one counter behind seq, ord and num; it never goes back.

CREATE TABLE ns_store (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    version      INTEGER NOT NULL,
    place        INTEGER NOT NULL DEFAULT 0,
    reclaimed_at INTEGER                            -- the last look for expired workers, by anybody
);

CREATE TABLE ns_job (
    seq         INTEGER PRIMARY KEY,                -- in the order of submission
    id          TEXT    NOT NULL,
    queue       TEXT    NOT NULL,
    prio        INTEGER NOT NULL,
    ord         INTEGER NOT NULL,                   -- its place in the queue: kept when given back, new when it becomes ready anew
    state       INTEGER NOT NULL,
    due         INTEGER,
    task        TEXT    NOT NULL,
    link        TEXT    NOT NULL DEFAULT '',        -- the key of its chain or group
    pos         INTEGER NOT NULL DEFAULT 0,
    deaths      INTEGER NOT NULL DEFAULT 0,
    died_with   TEXT    NOT NULL DEFAULT '',
    death_cause TEXT    NOT NULL DEFAULT '',
    parked_at   INTEGER,
    park_key    TEXT    NOT NULL DEFAULT '',
    parked      TEXT    NOT NULL DEFAULT '',
    worker      INTEGER,                            -- with claim and at: the token that put it back, for a settle that is repeated
    claim       INTEGER,
    at          INTEGER,
    progress    BLOB,
    spec        BLOB    NOT NULL,
    prev        BLOB,
    tail        BLOB    NOT NULL DEFAULT x''
);
CREATE UNIQUE INDEX ns_job_id ON ns_job (id);
CREATE INDEX ns_job_due ON ns_job (queue, due) WHERE state = 2;
CREATE INDEX ns_job_timer ON ns_job (due) WHERE state IN (2, 7);
CREATE INDEX ns_job_parked ON ns_job (park_key) WHERE state = 7;
CREATE INDEX ns_job_idle ON ns_job (queue, state) WHERE state IN (0, 2, 7);
CREATE INDEX ns_job_link ON ns_job (link, pos) WHERE link <> '';

CREATE TABLE ns_ready (
    queue TEXT    NOT NULL,
    prio  INTEGER NOT NULL,
    ord   INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (queue, prio DESC, ord)
) WITHOUT ROWID;

CREATE TABLE ns_running (
    seq    INTEGER PRIMARY KEY,
    worker INTEGER NOT NULL,
    claim  INTEGER NOT NULL,
    at     INTEGER NOT NULL
);

CREATE TABLE ns_outcome (
    seq      INTEGER PRIMARY KEY,
    state    INTEGER NOT NULL,
    num      INTEGER NOT NULL,                      -- in the order of ending; those that ended together share it, and go by seq
    ended_at INTEGER NOT NULL,
    gone_at  INTEGER,                               -- when it is to be forgotten
    worker   INTEGER,                               -- with claim: the token that ended it
    claim    INTEGER,
    at       INTEGER,                               -- when it was claimed
    tail     BLOB,                                  -- NULL: as in ns_job
    result   BLOB
);
-- One for each state, so that all of them only ever grow at their end; with the state in it, so that counting reads nothing else.
CREATE INDEX ns_outcome_successful ON ns_outcome (state, num) WHERE state = 4;
CREATE INDEX ns_outcome_failed ON ns_outcome (state, num) WHERE state = 5;
CREATE INDEX ns_outcome_cancelled ON ns_outcome (state, num) WHERE state = 6;
CREATE INDEX ns_outcome_gone ON ns_outcome (gone_at) WHERE gone_at IS NOT NULL;

CREATE TABLE ns_worker (
    nr       INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT    NOT NULL,
    deadline INTEGER,                               -- NULL: gone; the row stays for its name, and its number is never used again
    lease    INTEGER NOT NULL,
    last     INTEGER NOT NULL DEFAULT 0,            -- the number of its last claim
    drain    INTEGER NOT NULL DEFAULT 0,
    info     BLOB    NOT NULL
);

CREATE UNIQUE INDEX ns_worker_id ON ns_worker (id) WHERE deadline IS NOT NULL;

CREATE TABLE ns_link (
    key        TEXT    PRIMARY KEY,
    n          INTEGER NOT NULL,
    status     TEXT    NOT NULL DEFAULT 'processing',
    pos        INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0,
    on_success BLOB    NOT NULL,
    on_error   BLOB    NOT NULL,
    result_ttl INTEGER,
    failed_ttl INTEGER,
    max_prev   INTEGER NOT NULL,
    ended_at   INTEGER,
    gone_at    INTEGER
);
CREATE INDEX ns_link_gone ON ns_link (gone_at) WHERE gone_at IS NOT NULL;

CREATE TABLE ns_member (                            -- a group's jobs that have ended
    link   TEXT    NOT NULL,
    pos    INTEGER NOT NULL,
    status TEXT    NOT NULL,
    result BLOB,
    PRIMARY KEY (link, pos)
) WITHOUT ROWID;

CREATE TABLE ns_schedule (
    id       TEXT    PRIMARY KEY,
    schedule TEXT    NOT NULL,
    task     TEXT    NOT NULL,
    queue    TEXT    NOT NULL,
    priority INTEGER NOT NULL,
    job      BLOB    NOT NULL,
    anchor   INTEGER NOT NULL,
    next_at  INTEGER NOT NULL,
    last_at  INTEGER,
    paused   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX ns_schedule_next ON ns_schedule (next_at);

CREATE TABLE ns_pause (queue TEXT PRIMARY KEY, reason TEXT NOT NULL, by TEXT NOT NULL, at INTEGER NOT NULL);
CREATE TABLE ns_task (name TEXT PRIMARY KEY, queue TEXT NOT NULL);
CREATE TABLE ns_asked (seq INTEGER PRIMARY KEY);    -- running, or given back, and somebody asked to cancel it

-- What readers see: the columns of core.record.Row, in its order, between seq and gone_at. What has outlived its retention stays in
-- here until it is pruned; who asks leaves it out.
CREATE VIEW ns_row AS
SELECT j.seq, j.id, j.queue,
       CASE WHEN o.seq IS NOT NULL THEN o.state WHEN r.seq IS NOT NULL THEN 3 ELSE j.state END AS state,
       j.spec, coalesce(o.tail, j.tail) AS tail, j.prev, o.result, j.prio AS priority, j.due,
       coalesce((SELECT w.id FROM ns_worker w WHERE w.nr = coalesce(r.worker, o.worker, j.worker)), j.died_with) AS worker,
       coalesce(r.at, o.at, j.at) AS claimed_at, o.ended_at, j.deaths, j.parked, j.progress, j.task, j.link, j.pos, o.gone_at
FROM ns_job j LEFT JOIN ns_running r ON r.seq = j.seq LEFT JOIN ns_outcome o ON o.seq = j.seq;

INSERT INTO ns_store (one, version) VALUES (1, 1);

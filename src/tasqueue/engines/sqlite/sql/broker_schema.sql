-- A broker's tables, version 1; `ns_` stands for the namespace's prefix. Times are UNIX milliseconds.

CREATE TABLE ns_store (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,
    place   INTEGER NOT NULL DEFAULT 0              -- the one counter behind nr and ord; it never goes back
);

CREATE TABLE ns_message (
    nr     INTEGER PRIMARY KEY,
    id     TEXT NOT NULL,
    queue  TEXT NOT NULL,
    rank   INTEGER NOT NULL,                        -- minus the priority
    ord    INTEGER NOT NULL,                        -- its place; new when it has become due
    until  INTEGER,                                 -- NULL: ready; else due then, or leased until then
    leased INTEGER NOT NULL DEFAULT 0,
    body   BLOB NOT NULL,
    UNIQUE (queue, id)
);
CREATE INDEX ns_ready ON ns_message (queue, rank, ord) WHERE until IS NULL;
CREATE INDEX ns_later ON ns_message (queue, leased, until) WHERE until IS NOT NULL;

INSERT INTO ns_store (one, version) VALUES (1, 1);

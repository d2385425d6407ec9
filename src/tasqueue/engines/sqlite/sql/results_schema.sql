-- The tables of results, version 1; `ns_` stands for the namespace's prefix. Times are UNIX milliseconds.

CREATE TABLE ns_store (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,
    place   INTEGER NOT NULL DEFAULT 0              -- the one counter behind revision and nr; it never goes back
);

CREATE TABLE ns_value (
    nr       INTEGER PRIMARY KEY,
    key      TEXT NOT NULL UNIQUE,
    value    BLOB NOT NULL,
    revision INTEGER NOT NULL,
    gone_at  INTEGER
);
CREATE INDEX ns_gone ON ns_value (gone_at) WHERE gone_at IS NOT NULL;

CREATE TABLE ns_entry (
    name TEXT NOT NULL,                             -- the index
    id   TEXT NOT NULL,
    at   REAL NOT NULL,
    nr   INTEGER NOT NULL,                          -- those of one time are in the order of their entering
    PRIMARY KEY (name, id)
) WITHOUT ROWID;
CREATE INDEX ns_newest ON ns_entry (name, at DESC, nr DESC);

INSERT INTO ns_store (one, version) VALUES (1, 1);

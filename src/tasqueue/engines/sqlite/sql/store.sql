-- What every set of tables has: the table `store` of one row, with the version of the schema and the one counter.

-- name: place
-- ? how many numbers -> the last of them
UPDATE ns_store SET place = place + ? RETURNING place;

-- name: touch
-- Writes a page and changes nothing: the commit begins the write-ahead log anew after a checkpoint.
UPDATE ns_store SET one = 1;

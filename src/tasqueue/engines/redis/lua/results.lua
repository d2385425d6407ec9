-- What the scripts of results start from.
--
-- KEYS[1] is "{namespace}:R:", so nothing here meets a key of the engine.
--
--   v:<key>    string  revision (8 random bytes), value; expires as it was asked to
--   x:<index>  zset    number (16 digits), id -> time: those of one time are in the order of their entering
--   i:<index>  hash    id -> its member in x:<index>
--   seq        string  the counter of numbers
local K = KEYS[1]
local call, unpack = redis.call, unpack
local CHUNK = 1000 -- arguments of one inner command, at most: the interpreter's stack ends at 8,000

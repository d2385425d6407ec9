-- What runs may always end: a server whose memory is full refuses a script at its first write, unless that is one that needs no
-- memory, and lets it finish then. So leases are kept, finishes are stored, and memory is freed again.
call('DEL', K .. 'none')

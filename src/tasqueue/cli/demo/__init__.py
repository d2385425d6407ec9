"""`tasqueue demo`: a real job on the embedded engine. Read `app.py` first.

`files.py` says what it counts, `fleet.py` starts and kills the workers, `run.py` enqueues, watches and checks,
`command.py` shows what came of it.
"""

"""One module for each library, imported by `child.py` in that library's own environment.

An adapter has

    SETTINGS            how the library is set up, in a line; the docstring says why
    JOBS                how many jobs a drain has: fewer where the library is slow
    SCENARIOS           which it takes part in, when not in all
    LEFT or DONE        commands whose replies add up to the jobs without a stored result, or with one
    work(concurrency)   be one worker process, until killed
    producer()          a context manager, async where the library is, that gives `put(task, *args)`

and the tasks `noop(a, b)`, which returns the sum, `stamp(sent)` and, where it has coroutines, `sleep(seconds)`.
"""

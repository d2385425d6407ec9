"""One module for each library, imported by `child.py`, which says what it has, in that library's own environment.

All have the tasks `noop(a, b)`, which returns the sum, `stamp(sent)` and, where there are coroutines, `sleep(seconds)`.
"""

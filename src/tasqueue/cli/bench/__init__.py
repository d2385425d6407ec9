"""`tasqueue bench`: what this machine does, next to a plain loop that does the same bookkeeping by hand (the floor).

`floors.py` is that loop, `measures.py` what is measured of the library, `child.py` gives each measurement a process of
its own, `suite.py` runs them in turns and sums up, `command.py` shows the figures.
"""

"""`tasqueue demo`: a real job on the embedded engine. Read `app.py` first.

`files.py` says what it counts; `run.py` starts the workers, enqueues and waits; `chaos.py` kills them; `report.py` judges.
"""

"""`python -m tasqueue`: the same as `tasqueue`."""

from .cli import main

main(prog_name="tasqueue")

"""Tasqueue: a distributed job and worker library that loses nothing. See `docs/` and the README."""

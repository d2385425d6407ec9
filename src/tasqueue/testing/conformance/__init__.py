"""The definition of an engine: what these tests ask for is promised, what they do not ask for is not.

    pytest --pyargs tasqueue.testing.conformance --engine sqlite:////tmp/proof.db

`--engine` may be repeated, and `--engine 'redis://localhost/0|sqlite:///proof.db'` is a pair, the broker first; without
it the library's own engines are proved. Each test gets a fresh store (a namespace of its own within the URL). A test
may look at `capabilities`, never at an engine's name: `@needs("shared")` skips, and says why.
"""

"""Values and pure functions: told the time, the randomness and the ids; no input, no output, no loop."""

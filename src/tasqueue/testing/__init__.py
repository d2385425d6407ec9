"""Instruments for tests, a user's own included: a clock moved by hand, the suite that proves an engine (`conformance`).

Nothing of the product imports this package.
"""

"""Instruments for tests, one's own included: a clock moved by hand, and the suite that proves an engine (`conformance`).

Nothing of the product imports this package.
"""

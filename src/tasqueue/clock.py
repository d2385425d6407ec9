"""The ports through which time and randomness enter; nothing else may ask the system for either.

Worker, scheduler and reaper code takes a `Ports`, so that a simulation can run the same code under a virtual clock
and a seed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import NamedTuple


class Ports(NamedTuple):
    """`now`: UNIX time in seconds. `mono`: a monotonic time in seconds, the same for all processes of the machine.

    `rand`: a float in [0, 1), for jitter. `bits`: n random bytes, for ids.
    """

    now: Callable[[], float]
    mono: Callable[[], float]
    rand: Callable[[], float]
    bits: Callable[[int], bytes]


SYSTEM = Ports(now=time.time, mono=time.monotonic, rand=random.SystemRandom().random, bits=os.urandom)

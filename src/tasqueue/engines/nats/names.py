"""How names become subjects, streams and consumers, and what a message looks like.

    <NS>_Q                        the work-queue stream
    <ns>.q.<queue>.<priority>     messages that could start, or are due in a moment, each until it is acknowledged
    <ns>.d.<queue>.<priority>.<h> messages that are due later; the server moves each to its `q` subject in time
    <ns>.p.<queue>.<priority>     one empty message for each priority that a queue has ever had
    <queue>_<priority>            the consumer of a `q` subject

A message is a byte 1, its due date (ms, or 0; six bytes), the length of its id (two bytes), the id, the body; numbers
are big endian.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple

LONGEST = 100
"""Of a token; a longer one ends in its hash."""

HEAD = 9
"""Bytes before the id."""

_strange = re.compile(rb"[^A-Za-z0-9-]")


def token(name: str) -> str:
    """Any text as a token that subjects, streams and consumers can hold, another for each text."""
    text = _strange.sub(lambda found: b"=%02X" % ord(found[0]), name.encode(errors="surrogatepass")).decode()
    if len(text) <= LONGEST:
        return text or "="  # no other text has a lone one
    return f"{text[:60]}={hashlib.sha256(text.encode()).hexdigest()[:32]}"


class Lane(NamedTuple):
    """A queue (as a token) and a priority: a subject, and its consumer."""

    queue: str
    priority: int

    @property
    def tail(self) -> str:
        """The end of its subjects."""
        return f"{self.queue}.{self.priority}"

    @property
    def consumer(self) -> str:
        """Its consumer's name."""
        return f"{self.queue}_{self.priority}"


class Place(NamedTuple):
    """What an acknowledgement's subject says of a delivery."""

    lane: Lane
    delivered: int
    """The how-manieth delivery it is."""
    sequence: int
    """Of the message, in the stream."""
    at: float
    """When it was stored (UNIX seconds)."""


def place(handle: str) -> Place:
    """`$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<sequence>.<…>.<ns>.<…>`."""
    parts = handle.split(".")
    at = 4 if len(parts) > 9 else 2
    return Place(_lane(parts[at + 1]), int(parts[at + 2]), int(parts[at + 3]), int(parts[at + 5]) / 1e9)


@lru_cache(1024)
def _lane(consumer: str) -> Lane:
    queue, _, priority = consumer.rpartition("_")
    return Lane(queue, int(priority))


def pack(id: str, body: bytes, due: int = 0) -> bytes:
    """A message as it is stored."""
    name = id.encode(errors="surrogatepass")
    return b"\1" + due.to_bytes(6, "big") + len(name).to_bytes(2, "big") + name + body


def due_of(data: bytes) -> float:
    """When it is due (UNIX seconds); 0: at once."""
    return int.from_bytes(data[1:7], "big") / 1000 if data[:1] == b"\1" else 0.0


def unpack(data: bytes) -> tuple[str, bytes]:
    """Id and body. Bytes that are no message of ours: an id made of their hash, and all of them as the body."""
    end = HEAD + int.from_bytes(data[7:HEAD], "big")
    try:
        if data[:1] == b"\1" and len(data) >= max(HEAD, end):
            return data[HEAD:end].decode(errors="surrogatepass"), data[end:]
    except UnicodeDecodeError:
        pass
    return hashlib.sha256(data).hexdigest()[:32], data


def fingerprint(id: str) -> str:
    """A message's own token among those due later: the same id takes the place of an earlier one."""
    return hashlib.sha256(id.encode(errors="surrogatepass")).hexdigest()[:32]

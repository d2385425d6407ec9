"""What the server says of itself, less what this run has asked of it."""

from __future__ import annotations

import time
from typing import Any

from redis import Redis


class Server:
    """The server that all share, seen from the run."""

    def __init__(self, port: int) -> None:
        self._redis = Redis(port=port)
        self._sent = 0

    def close(self) -> None:
        self._redis.close()

    def empty(self) -> None:
        self._ask("FLUSHALL", "SYNC")  # Valkey frees later by default, and memory is looked at right after

    def count(self, commands: list[list[str]]) -> int:
        """The sum of the replies, all of one moment."""
        pipe = self._redis.pipeline(transaction=True)
        for command in commands:
            pipe.execute_command(*command)
        self._sent += len(commands) + 2
        return sum(int(reply or 0) for reply in pipe.execute())

    def commands(self) -> int:
        """Calls so far, those inside scripts too, without ours."""
        stats = self._info("commandstats")
        return sum(one["calls"] for one in stats.values()) - (self._sent - 1)  # this INFO is not counted yet

    def stored(self) -> int:
        """Bytes of what is stored: without the buffers of connections and the texts of scripts."""
        until = time.monotonic() + 1.0
        while self._info("clients")["connected_clients"] > 1 and time.monotonic() < until:
            time.sleep(0.002)
        info = self._info("memory")
        return info["used_memory"] - info["mem_clients_normal"] - info.get("used_memory_scripts", 0)

    def about(self) -> dict[str, str]:
        info, settings = self._info("server"), self._redis.config_get("appendonly", "save")
        self._sent += 1
        name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
        shown = {key: value or "no" for key, value in settings.items()}
        return {"version": name, "transport": "TCP on loopback", **shown}

    def _info(self, section: str) -> dict[str, Any]:
        self._sent += 1
        return self._redis.info(section)

    def _ask(self, *command: str) -> Any:
        self._sent += 1
        return self._redis.execute_command(*command)

"""What the server's settings promise, read from INFO: CONFIG is often forbidden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ...errors import EngineUnavailable, TasqueueError, Unsupported
from ...interfaces import Durability, Finding
from .client import Client
from .target import Target

Level = Literal["process", "os-crash", "power-loss"]
OLDEST = {"redis": (6, 2), "valkey": (7, 2)}


async def read_info(client: Client) -> dict[str, str]:
    """INFO as a mapping. Empty when this user may not ask."""
    try:
        reply: bytes = await client.command("INFO")
    except EngineUnavailable:
        raise
    except TasqueueError:
        return {}
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines() if not line.startswith("#"))
    return {name: value.strip() for name, _, value in lines}


def server_of(info: Mapping[str, str]) -> tuple[str, str]:
    """Its name and version."""
    if "valkey_version" in info:
        return "valkey", info["valkey_version"]
    return "redis", info.get("redis_version", "")


def too_old(info: Mapping[str, str]) -> str:
    """What is wrong with its version; "" when nothing is, or it is unknown."""
    name, version = server_of(info)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < OLDEST[name]:
        wanted = ".".join(map(str, OLDEST[name]))
        return f"{name} {version} is too old: {wanted} or newer, please"
    return ""


def forgets_jobs(info: Mapping[str, str]) -> str:
    """Why no worker may trust this server; "" when it may."""
    policy = info.get("maxmemory_policy", "")
    if policy.startswith("allkeys-") and info.get("maxmemory", "0") != "0":
        return (
            f"maxmemory_policy is {policy} with a maxmemory of {info['maxmemory']} bytes: when memory is full, the"
            " server would throw away jobs that wait; set it to noeviction (CONFIG SET maxmemory-policy noeviction)"
        )
    return ""


async def check(client: Client) -> None:
    """Refuses a server that cannot do this work. Unsupported."""
    info = await read_info(client)
    wrong = too_old(info) or forgets_jobs(info)
    if wrong:
        raise Unsupported(f"{client.url}: {wrong}")


async def examine(client: Client, target: Target) -> Durability:
    """The table of the doctor."""
    info = await read_info(client)
    if not info:
        hidden = Finding("INFO", "not permitted", "warn", "give this user +info, so that the doctor can look")
        return Durability("os-crash", "Unknown: this user may not ask the server for its settings.", (hidden,))
    fsync = await _fsync(client)
    level, promise = _class(info, fsync)
    if info.get("role") == "slave" or info.get("connected_slaves", "0") != "0":
        promise += " Replication is asynchronous: "
        if target.wait:
            promise += f"each submit and settle waits for {target.wait} replica(s)."
        else:
            promise += "what was acknowledged just before a failover can be gone (?wait=1 waits for a replica)."
    return Durability(level, promise, tuple(_findings(info, fsync, target)))


async def _fsync(client: Client) -> str:
    try:
        reply: list[Any] = await client.command("CONFIG", "GET", "appendfsync")
    except EngineUnavailable:
        raise
    except TasqueueError:
        return ""
    return reply[1].decode() if len(reply) == 2 else ""


def _class(info: Mapping[str, str], fsync: str) -> tuple[Level, str]:
    if info.get("aof_enabled") == "1":
        if fsync == "always":
            return "power-loss", "Each acknowledged write is on the disk."
        if fsync == "no":
            return (
                "os-crash",
                "Acknowledged writes survive the end of the server; they reach the disk when the system likes.",
            )
        unknown = "" if fsync else " (appendfsync could not be read; everysec is the default)"
        return (
            "os-crash",
            f"Acknowledged writes survive the end of the server; a power cut costs the last second or two{unknown}.",
        )
    return "os-crash", (
        "Acknowledged writes survive the end of your processes, not that of the server: without an append-only file, a"
        " restart goes back to the last snapshot, if there is one."
    )


def _findings(info: Mapping[str, str], fsync: str, target: Target) -> list[Finding]:
    name, version = server_of(info)
    old = too_old(info)
    found = [Finding("version", f"{name} {version}", "error" if old else "ok", old)]
    aof = info.get("aof_enabled") == "1"
    found.append(
        Finding(
            "appendonly",
            "yes" if aof else "no",
            "ok" if aof else "warn",
            "" if aof else "CONFIG SET appendonly yes: a restart loses no jobs",
        )
    )
    if aof:
        advice = (
            "appendfsync always loses nothing in a power cut, and costs an fsync for each batch"
            if fsync != "always"
            else ""
        )
        found.append(Finding("appendfsync", fsync or "unknown", "ok", advice))
    if info.get("aof_last_write_status", "ok") != "ok" or info.get("rdb_last_bgsave_status", "ok") != "ok":
        found.append(Finding("disk", "the last write failed", "error", "see the server's log: its disk may be full"))
    found.append(_memory(info))
    found.append(_replication(info, target))
    if target.cluster:
        found.append(Finding("cluster", "one namespace, one slot", "ok", "a cluster gives availability, not capacity"))
    safe = target.password is not None or target.tls
    found.append(
        Finding(
            "authentication",
            "password" if target.password is not None else "none",
            "ok" if safe else "warn",
            "" if safe else "anybody who reaches the port can read and change the jobs: set a password (ACL SETUSER)",
        )
    )
    return found


def _memory(info: Mapping[str, str]) -> Finding:
    policy, limit = info.get("maxmemory_policy", "unknown"), info.get("maxmemory", "0")
    if limit == "0":
        return Finding("maxmemory", f"no limit ({policy})", "ok")
    refusal = forgets_jobs(info)
    if refusal:
        return Finding("maxmemory", f"{limit} bytes, {policy}", "error", refusal)
    if policy.startswith("volatile-"):
        return Finding(
            "maxmemory",
            f"{limit} bytes, {policy}",
            "warn",
            "ended jobs may go before their time: only they carry a TTL; noeviction keeps them",
        )
    return Finding(
        "maxmemory", f"{limit} bytes, {policy}", "ok", "when it is full, enqueueing fails and what runs may still end"
    )


def _replication(info: Mapping[str, str], target: Target) -> Finding:
    role, replicas = info.get("role", "unknown"), int(info.get("connected_slaves", "0"))
    if role == "slave":
        return Finding("replication", "this is a replica", "error", "connect to the master, or by ?sentinel=name")
    if target.wait > replicas:
        return Finding(
            "replication",
            f"{replicas} replica(s), ?wait={target.wait}",
            "error",
            "no submit can succeed: start replicas, or lower ?wait=",
        )
    value = f"{role}, {replicas} replica(s)" + (f", ?wait={target.wait}" if target.wait else "")
    return Finding(
        "replication",
        value,
        "ok" if target.wait or not replicas else "warn",
        "" if target.wait or not replicas else "asynchronous; ?wait=1 waits for one",
    )

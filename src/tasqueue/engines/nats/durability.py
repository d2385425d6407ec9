"""What the server's settings promise, as far as a client can read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...interfaces import Durability, Finding
from . import errors
from .connection import OLDEST, Connection
from .errors import ApiError

SYNC = "sync_interval"
_UNREAD = (
    "clients cannot read it; by default the server syncs to disk every two minutes: set `sync_interval: always` in its"
    " `jetstream` block where a power cut must not cost the last jobs"
)


async def examine(connection: Connection, stream: str) -> Durability:
    """Of one stream, with what holds for the whole server."""
    try:
        account = await connection.api("INFO")
        info = await connection.api(f"STREAM.INFO.{stream}")
    except ApiError as error:
        raise errors.refused(connection.url, error) from None
    session = await connection.session()
    version = str(session.client.connected_server_version).strip("<>").rpartition(" v")[2]
    found = [
        Finding("version", f"nats-server {version} (at least {'.'.join(map(str, OLDEST))})"),
        Finding("JetStream", "on"),
        *_limits(account),
        *_stream(stream, info),
        Finding(SYNC, "unknown", "warn", _UNREAD),
        _access(connection),
    ]
    level, promise = _class(info["config"])
    return Durability(level, promise, tuple(found))


def _class(config: Mapping[str, Any]) -> tuple[Any, str]:
    replicas = config["num_replicas"]
    if config["storage"] != "file":
        if replicas > 1:
            return "os-crash", (
                f"Acknowledged writes are in the memory of most of {replicas} servers: they survive the loss of"
                f" {_spare(replicas)} of them, and no more than that."
            )
        return "process", "Acknowledged writes are in the server's memory: they end with it."
    if config.get("persist_mode") == "async":
        return "process", "The stream acknowledges before it writes (persist_mode: async): a crash costs the last ones."
    if replicas > 1:
        return "os-crash", (
            f"Acknowledged writes are with most of {replicas} servers: they survive the loss of {_spare(replicas)} of"
            " them, disk and all. A power cut of all at once costs what was not yet synced: up to two minutes, unless"
            " `sync_interval: always` is set."
        )
    return "os-crash", (
        "Acknowledged writes survive the end of the server (kill -9, too). A power cut or a crash of the machine costs"
        " what was not yet synced: up to two minutes by default, nothing with `sync_interval: always`."
    )


def _spare(replicas: int) -> int:
    return (replicas - 1) // 2


def _stream(name: str, info: Mapping[str, Any]) -> list[Finding]:
    config = info["config"]
    replicas, file = config["num_replicas"], config["storage"] == "file"
    found = [
        Finding(
            f"{name} storage",
            config["storage"],
            "ok" if file else "warn",
            "" if file else "delete the stream when it is empty, and it is created anew on disk",
        )
    ]
    clustered: Mapping[str, Any] = info.get("cluster") or {}
    behind = [peer["name"] for peer in clustered.get("replicas") or () if not peer.get("current")]
    if behind:
        found.append(
            Finding(f"{name} replicas", f"{replicas}, not current: {', '.join(behind)}", "warn", "start these servers")
        )
    else:
        advice = "" if replicas > 1 or not clustered.get("name") else "?replicas=3 survives the loss of a server"
        found.append(Finding(f"{name} replicas", str(replicas), "warn" if advice else "ok", advice))
    capped = [f"{key}={config[key]}" for key in ("max_msgs", "max_bytes", "max_age") if config.get(key, 0) > 0]
    if capped:
        advice = "a limit that somebody has set: when it is reached, the oldest are thrown away; remove it"
        found.append(Finding(f"{name} limits", ", ".join(capped), "error", advice))
    state = info["state"]
    found.append(Finding(f"{name} content", f"{state['messages']:,} messages, {state['bytes']:,} bytes"))
    return found


def _limits(account: Mapping[str, Any]) -> list[Finding]:
    limits: Mapping[str, Any] = account.get("limits") or {}
    room: int = limits.get("max_storage", -1)
    if room <= 0:
        return [Finding("storage limit", "none for this account")]
    used: int = account.get("storage", 0)
    full = used > 0.9 * room
    return [
        Finding(
            "storage limit",
            f"{used:,} of {room:,} bytes used",
            "warn" if full else "ok",
            "when it is reached, enqueueing fails and what runs may not end; make room" if full else "",
        )
    ]


def _access(connection: Connection) -> Finding:
    target = connection.target
    kind = "user and password" if target.username is not None else "token" if target.token is not None else ""
    kind = kind or next((name for name in ("creds", "nkey", "ssl_certfile") if name in target.files), "")
    advice = "anybody who reaches the port can read and change the jobs: set `authorization` in the server's settings"
    return Finding("authentication", kind or "none", "ok" if kind else "warn", "" if kind else advice)

"""Streams: created where they are missing, and brought up to what is needed of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import errors
from .connection import Connection
from .errors import ApiError, ServerUnusable


async def ensure(connection: Connection, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The stream's information, once it is as wanted. Replicas are changed only when the URL names a number. What
    others have set beyond that stays. ServerUnusable, EngineUnavailable.
    """
    name = wanted["name"]
    replicas = connection.target.replicas
    try:
        try:
            info = await connection.api(f"STREAM.INFO.{name}", setup=True)
        except ApiError as error:
            if error.code != errors.NO_STREAM:
                raise
            try:
                return await connection.api(
                    f"STREAM.CREATE.{name}", {**wanted, "num_replicas": replicas or 1}, setup=True
                )
            except ApiError as second:
                if second.code != errors.STREAM_EXISTS:
                    raise
                info = await connection.api(f"STREAM.INFO.{name}", setup=True)  # somebody else was first
        has: dict[str, Any] = info["config"]
        if has["retention"] != wanted.get("retention", "limits"):
            raise ServerUnusable(
                f"{connection.url}: stream {name!r} is there and is somebody else's (retention {has['retention']});"
                " choose another namespace with ?namespace="
            )
        changed = {key: value for key, value in wanted.items() if has.get(key) != value and key not in FIXED}
        if replicas and has["num_replicas"] != replicas:
            changed["num_replicas"] = replicas
        if changed:
            info = await connection.api(f"STREAM.UPDATE.{name}", {**has, **changed}, setup=True)
        return info
    except ApiError as error:
        raise errors.refused(connection.url, error) from None


FIXED = frozenset({"name", "retention", "storage"})
"""What a stream keeps for life."""

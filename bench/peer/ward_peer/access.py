"""Roles, permissions, keys and refusals: pure rules that are independent of the engine and the framework."""

import hashlib
import hmac
import os
import re
import time
import zlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

PERMISSIONS = (
    "Workspace.view", "Integration.view", "ApiKey.view", "Call.view", "Integration.update", "Call.create",
    "Workspace.update", "Workspace.create", "Integration.create", "Integration.delete", "ApiKey.create",
    "ApiKey.delete", "Audit.view",
)  # fmt: skip
ROLES = ("viewer", "member", "operator", "admin", "owner")
RANK = {role: rank for rank, role in enumerate(ROLES)}
BIT = {name: 1 << index for index, name in enumerate(PERMISSIONS)}
# Permissions are in the order in which roles gain them, so a role has the first N of them.
ROLE_BITS = tuple((1 << count) - 1 for count in (2, 4, 6, 13, 13))
ROLE_PERMISSIONS = tuple(PERMISSIONS[:count] for count in (2, 4, 6, 13, 13))
CANONICAL = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
NIL = "00000000-0000-0000-0000-000000000000"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_US = 86_400_000_000


class Refusal(Exception):
    """A refused request: an HTTP status, and the body's `error_code` and `detail` or a list of problems."""

    def __init__(self, status: int, code: str, detail: str | list) -> None:
        super().__init__(code)
        self.status, self.code, self.detail = status, code, detail

    def body(self, request_id: str) -> bytes:
        if isinstance(self.detail, list):
            return orjson.dumps({"detail": self.detail})
        return orjson.dumps({"detail": self.detail, "error_code": self.code, "request_id": request_id})


def unauthorized() -> Refusal:
    return Refusal(401, "unauthorized", "Missing or invalid API key.")


def forbidden() -> Refusal:
    return Refusal(403, "forbidden", "Insufficient permissions.")


def no_workspace() -> Refusal:
    return Refusal(404, "workspace_not_found", "Workspace not found.")


def no_api_key() -> Refusal:
    return Refusal(404, "api_key_not_found", "API key not found.")


def slug_taken() -> Refusal:
    return Refusal(409, "slug_taken", "Workspace slug already taken.")


def too_many_unclaimed() -> Refusal:
    return Refusal(503, "too_many_unclaimed", "Too many workspaces are waiting to be claimed. Try again later.")


def beyond_caller() -> Refusal:
    return Refusal(403, "beyond_caller", "A key cannot hand out or touch more than it may do itself.")


def unsupported_principal() -> Refusal:
    return Refusal(
        403, "unsupported_principal", "Only a user can own a workspace; this key speaks for a service."
    )


def owner_only() -> Refusal:
    return Refusal(403, "owner_only", "Only owners can do this.")


def not_your_key() -> Refusal:
    return Refusal(403, "not_your_key", "Only the user it speaks for may rotate this key.")


def problem(loc: list, message: str, given: object) -> dict:
    """The entry of a value rule in a 422, in the form that pydantic gives to a `ValueError`."""
    return {"type": "value_error", "loc": loc, "msg": f"Value error, {message}", "input": given, "ctx": {"error": {}}}


def invalid(problems: list[dict]) -> Refusal:
    return Refusal(422, "validation_error", problems)


class Reach:
    """The rights of a key or a membership: a rank, and permissions as bits, never more than those of the role."""

    __slots__ = ("bits", "rank")

    def __init__(self, rank: int, bits: int) -> None:
        self.rank, self.bits = rank, bits

    def covers(self, other: "Reach") -> bool:
        return other.rank <= self.rank and other.bits & ~self.bits == 0

    def names(self) -> tuple[str, ...]:
        if self.bits == ROLE_BITS[self.rank]:
            return ROLE_PERMISSIONS[self.rank]
        return tuple(name for name, bit in BIT.items() if self.bits & bit)


def narrowed(role: str, permissions: str) -> Reach:
    """The rights of a role, limited by a JSON list of permissions. An empty list means the whole role."""
    rank = RANK[role]
    if permissions == "[]":
        return Reach(rank, ROLE_BITS[rank])
    bits = sum(BIT.get(name, 0) for name in set(orjson.loads(permissions)))
    return Reach(rank, bits & ROLE_BITS[rank])


def within(key: Reach, role: str) -> Reach:
    """The rights of a key in a workspace in which its principal has this role."""
    rank = min(key.rank, RANK[role])
    return Reach(rank, key.bits & ROLE_BITS[rank])


class Entry:
    """An authenticated caller: the principal, its key, and the workspace of the path if the caller may see it."""

    __slots__ = ("credential", "key_id", "kind", "principal", "reach", "role", "secret_hash", "workspace")

    def __init__(self, key_id, secret_hash, credential, principal, kind, role, reach, workspace) -> None:
        self.key_id, self.secret_hash, self.credential = key_id, secret_hash, credential
        self.principal, self.kind = principal, kind
        # `role` is the role of the membership in that workspace. `reach` is the intersection of its rights and the key's.
        self.role, self.reach, self.workspace = role, reach, workspace


def recognize(found, now, key_id: str, secret_hash: bytes) -> Entry:
    """The caller, from the one row that an engine's gate reads (401 for an unknown key).

    The row has the secret's hash, credential, principal and its kind, the key's role and permissions, its expiry and
    revocation, and its home's state. The caller's role in the requested workspace and that workspace follow.
    """
    if found is None or not hmac.compare_digest(found[0], secret_hash):
        raise unauthorized()
    _, credential, principal, kind, key_role, permissions, expires_at, revoked_at, home, role = found[:10]
    if revoked_at is not None or expires_at <= now or home != "active":
        raise unauthorized()
    reach = narrowed(key_role, permissions)
    if found[10] is None:
        return Entry(key_id, secret_hash, credential, principal, kind, None, reach, None)
    return Entry(key_id, secret_hash, credential, principal, kind, role, within(reach, role), found[10:])


def require(entry: Entry, need: str, target: bool) -> None:
    """Checks that the caller may see the workspace (404 otherwise) and has the permission (403 otherwise)."""
    if target and entry.workspace is None:
        raise no_workspace()
    if not entry.reach.bits & BIT[need]:
        raise forbidden()


ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LENGTH = 5 + 22 + 43 + 6


PAIRS = tuple(first + second for first in ALPHABET for second in ALPHABET)
PAIR = 62 * 62


def base62(number: int, width: int) -> str:
    digits = []
    for _ in range(0, width, 2):
        number, pair = divmod(number, PAIR)
        digits.append(PAIRS[pair])
    return "".join(reversed(digits))[-width:]


def presented(authorization: bytes | None) -> tuple[str, bytes]:
    """The public part of a bearer and the hash of its secret. A malformed key gets 401 without a query."""
    if authorization is None or authorization[:7].lower() != b"bearer ":
        raise unauthorized()
    key = authorization[7:].strip()
    if len(key) != LENGTH or not key.startswith(b"ward_") or not key[5:].isalnum():
        raise unauthorized()
    covered = key[5:70]
    if base62(zlib.crc32(covered), 6).encode() != key[70:]:
        raise unauthorized()
    return covered[:22].decode(), hashlib.sha256(covered[22:]).digest()


def new_key(key_id: str | None = None) -> tuple[str, str, bytes]:
    """A new secret: public part, whole text, hash. With `key_id`, the key keeps its public part."""
    key_id = key_id or base62(int.from_bytes(os.urandom(16)), 22)
    secret = base62(int.from_bytes(os.urandom(32)), 43)
    covered = (key_id + secret).encode()
    return key_id, f"ward_{key_id}{secret}{base62(zlib.crc32(covered), 6)}", hashlib.sha256(secret.encode()).digest()


def time_text(us: int) -> str:
    """Microseconds since 1970 as `2026-04-18T12:00:00.123456Z`."""
    seconds, fraction = divmod(us, 1_000_000)
    return f"{_second(seconds)}.{fraction:06d}Z"


_last_second = (-1, "")


def _second(seconds: int) -> str:
    # Most calls are within the same second as the call before.
    global _last_second  # noqa: PLW0603
    known, text = _last_second
    if known != seconds:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _last_second = (seconds, text)
    return text


def moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def micros(text: str) -> int:
    """Parses a text of `time_text` into microseconds since 1970."""
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


def ordered_id(us: int) -> str:
    """A version 7 UUID, so that rows created at the same time are adjacent."""
    ms, raw = f"{us // 1000:012x}", os.urandom(10).hex()
    return f"{ms[:8]}-{ms[8:]}-7{raw[:3]}-{'89ab'[int(raw[3], 16) & 3]}{raw[4:7]}-{raw[7:19]}"


def path_id(text: str) -> str:
    """The workspace that a path names; other text becomes the nil UUID, which no workspace has."""
    if CANONICAL.fullmatch(text):
        return text
    try:
        return str(UUID(text))
    except ValueError:
        return NIL

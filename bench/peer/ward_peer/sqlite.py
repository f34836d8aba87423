"""The operations on SQLite.

Reads run in the calling thread, because a point read costs microseconds, less than a change of threads. Writes of a
worker share an fsync: all waiting writes go into one transaction. Its statements run on the event loop's
thread, because in another thread each would wait for the interpreter's lock. Only the blocking steps, taking the
lock between workers and the commit, have a separate thread.
"""

import asyncio
import fcntl
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import apsw
import orjson

from ward_peer import schema
from ward_peer.access import (
    NIL, Entry, Refusal, beyond_caller, micros, narrowed, new_key, no_api_key, not_your_key,
    ordered_id, recognize, require, slug_taken, time_text, too_many_unclaimed, unauthorized,
    unsupported_principal,
)  # fmt: skip
from ward_peer.answers import (
    CONNECTOR, CREATED_AT, PROVISIONED_AT, SLUG, TOTAL_LIMIT, UPDATED_AT, beginnings, expiry, key_body, key_facts,
    metadata, new_workspace_row, numbers_body, page_body, patched, provisioned_body, without_repeats, workspace_body,
)  # fmt: skip

BATCH = 256
# The page cache per connection, as a negative number of KiB, and the pages of WAL before a checkpoint.
CACHE_KIB = -16_384
CHECKPOINT_PAGES = 4_000
LAPSED_AT_ONCE = 100

WORKSPACE = """w.id, w.slug, w.name, w.environment, w.backend_org_id, w.region, w.connector_type, w.provisioned_at,
    w.created_at, w.updated_at"""
# One statement: the key, its home's state, the caller's role in the requested workspace, and that workspace.
GATE = f"""SELECT k.secret_hash, k.id, k.principal_id, k.principal_kind, k.role, k.permissions,
    k.expires_at, k.revoked_at, h.state, m.role, {WORKSPACE}
    FROM api_keys k JOIN workspaces h ON h.id = k.workspace_id
    LEFT JOIN memberships m ON m.workspace_id = ?2 AND m.principal_id = k.principal_id
    LEFT JOIN workspaces w ON w.id = m.workspace_id AND w.state = 'active'
    WHERE k.key_id = ?1"""
LIST = f"""SELECT {WORKSPACE}, m.position FROM memberships m JOIN workspaces w ON w.id = m.workspace_id
    WHERE m.principal_id = ?1 AND m.position > ?2 AND m.position > 0 ORDER BY m.position LIMIT ?3"""
COUNT = """SELECT count(*) FROM
    (SELECT 1 FROM memberships WHERE principal_id = ?1 AND position > 0 LIMIT ?2)"""
AUDIT = """INSERT INTO audit_events (workspace_id, at, id, service, action, resource_type, resource_id, resource_name,
    actor_entity_id, actor_credential_id, ip_address, user_agent, phi_accessed, metadata)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, ?13)"""
INSERT_WORKSPACE = """INSERT INTO workspaces (id, slug, name, environment, backend_org_id, region, connector_type,
    provisioned_at, created_at, updated_at, state, last_position)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"""
UPDATE_WORKSPACE = """UPDATE workspaces SET name = ?3, environment = ?4, region = ?6, connector_type = ?7,
    provisioned_at = ?8, updated_at = ?10 WHERE id = ?1"""
KEY = """SELECT id, principal_id, principal_kind, name, role, permissions, updated_at, created_by_entity_id,
    created_by_credential_id FROM api_keys WHERE key_id = ?1 AND workspace_id = ?2 AND position > 0"""


def _position(db, table: str, row_id: str, us: int) -> int:
    return db.execute(
        f"UPDATE {table} SET last_position = max(last_position + 1, ?2) WHERE id = ?1 RETURNING last_position",
        (row_id, us),
    ).fetchall()[0][0]


def _audit(db, call, workspace: str, service: str, action: str, resource: tuple, actor: tuple, facts: str) -> None:
    """`resource` is kind, id and name; `actor` is principal and credential."""
    event = (workspace, call.now, ordered_id(call.us), service, action, *resource, *actor, call.address,
             call.user_agent, facts)  # fmt: skip
    db.execute(AUDIT, event)


def _of_workspace(db, call, entry: Entry, action: str, facts: str) -> None:
    row = entry.workspace
    _audit(db, call, row[0], "workspaces", action, ("workspace", row[0], row[SLUG]),
           (entry.principal, entry.credential), facts)  # fmt: skip


def look_up(db, call, key_id: str, secret_hash: bytes, workspace: str | None) -> Entry:
    return recognize(db.execute(GATE, (key_id, workspace or NIL)).fetchone(), call.now, key_id, secret_hash)


class Sqlite:
    """The engine of one worker: its connection, and the thread that commits."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.waiting = deque()
        self.busy = False
        self.thread = ThreadPoolExecutor(1, "commit")

    def connect(self) -> apsw.Connection:
        db = apsw.Connection(self.path)
        db.set_busy_timeout(10_000)
        # Without this setting, plans may depend on bound values, and each use of a cached statement makes a new plan.
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "temp_store = MEMORY",
                       f"cache_size = {CACHE_KIB}", f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
                       "mmap_size = 268435456"):  # fmt: skip
            db.execute(f"PRAGMA {pragma}").fetchall()
        return db

    def prepare(self) -> None:
        """Creates the tables that do not exist yet."""
        db = self.connect()
        db.execute("BEGIN IMMEDIATE")
        db.execute(schema.sqlite())
        db.execute("COMMIT")
        db.close()

    async def start(self) -> None:
        self.reader, self.writer = self.connect(), self.connect()
        self.lock = open(f"{self.path}-writer", "w")  # noqa: SIM115

    async def stop(self) -> None:
        while self.busy:
            await asyncio.sleep(0.01)
        self.thread.shutdown()
        self.reader.close()
        self.writer.close()
        self.lock.close()

    # Writes

    async def write(self, work, *arguments):
        """Runs `work(db, ...)` in the next transaction, until it is durable. A refusal must precede any change."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.waiting.append((future, work, arguments))
        if not self.busy:
            self.busy = True
            loop.create_task(self.drain())
        return await future

    async def drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self.waiting:
                try:
                    fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    await loop.run_in_executor(self.thread, fcntl.flock, self.lock, fcntl.LOCK_EX)
                batch = [self.waiting.popleft() for _ in range(min(BATCH, len(self.waiting)))]
                outcomes = self.run(batch)
                committed = await loop.run_in_executor(self.thread, self.commit)
                for (future, _, _), outcome in zip(batch, outcomes, strict=True):
                    if future.cancelled():
                        continue
                    if not committed:
                        future.set_exception(Refusal(503, "unavailable", "Temporarily unavailable. Try again."))
                    elif isinstance(outcome, Exception):
                        future.set_exception(outcome)
                    else:
                        future.set_result(outcome)
                # The answers are sent, and the other workers may write.
                await asyncio.sleep(0)
        finally:
            self.busy = False

    def run(self, batch: list) -> list:
        """Runs a batch in an open transaction. Each item has a savepoint only if one of them has failed."""
        db = self.writer
        outcomes = []
        db.execute("BEGIN IMMEDIATE")
        for _, work, arguments in batch:
            try:
                outcomes.append(work(db, *arguments))
            except Refusal as refusal:
                outcomes.append(refusal)
            except Exception:
                db.execute("ROLLBACK")
                db.execute("BEGIN IMMEDIATE")
                return [self.run_apart(db, work, arguments) for _, work, arguments in batch]
        return outcomes

    def run_apart(self, db, work, arguments):
        try:
            with db:
                return work(db, *arguments)
        except Exception as error:
            return error

    def commit(self) -> bool:
        try:
            self.writer.execute("COMMIT")
        except apsw.Error:
            logging.exception("a batch was not committed")
            if self.writer.in_transaction:
                self.writer.execute("ROLLBACK")
            return False
        else:
            return True
        finally:
            fcntl.flock(self.lock, fcntl.LOCK_UN)

    # Operations. Reads first.

    async def admit(self, call, key_id: str, secret_hash: bytes, workspace: str | None) -> Entry:
        return look_up(self.reader, call, key_id, secret_hash, workspace)

    async def list_workspaces(self, entry: Entry, after: int, limit: int) -> bytes:
        rows = self.reader.execute(LIST, (entry.principal, after, limit + 1)).fetchall()
        counted = self.reader.execute(COUNT, (entry.principal, TOTAL_LIMIT + 1)).fetchone()[0]
        return page_body(rows, limit, counted)

    async def test_callers(self, entry: Entry) -> bytes:
        return numbers_body(numbers(self.reader, entry.workspace[0]))

    async def bootstrap(self, call, new, limits) -> bytes:
        return await self.write(bootstrap, call, new, limits)

    async def create_own(self, call, new) -> bytes:
        return await self.write(create_own, call, new)

    async def update(self, call, change) -> bytes:
        return await self.write(update, call, change)

    async def provision(self, call) -> bytes:
        return await self.write(provision, call)

    async def archive(self, call, slug: str) -> bytes:
        return await self.write(archive, call, slug)

    async def set_test_callers(self, call, wanted: list[str]) -> bytes:
        return await self.write(set_test_callers, call, wanted)

    async def claim(self, call, workspace: str, new) -> bytes:
        return await self.write(claim, call, workspace, new)

    async def mint(self, call, new) -> bytes:
        return await self.write(mint, call, new)

    async def rotate(self, call, key_id: str, days: int) -> bytes:
        return await self.write(rotate, call, key_id, days)

    async def revoke(self, call, key_id: str) -> None:
        return await self.write(revoke, call, key_id)

    async def store_last_used(self, used: dict[str, int]) -> None:
        await self.write(store_last_used, used)


# Steps within a transaction


def held(db, call, need: str) -> Entry:
    """The caller of a write, checked again within the transaction."""
    before = call.entry
    entry = look_up(db, call, before.key_id, before.secret_hash, before.workspace and before.workspace[0])
    require(entry, need, before.workspace is not None)
    return entry


def take_slug(db, call, slug: str, workspace: str) -> None:
    """Takes a slug, if necessary from a workspace whose time for a claim is over (409 otherwise)."""
    insert = "INSERT INTO slugs (slug, workspace_id) VALUES (?1, ?2) ON CONFLICT (slug) DO NOTHING"
    db.execute(insert, (slug, workspace))
    if db.changes() == 0:
        due = db.execute(
            "SELECT u.workspace_id FROM slugs s JOIN unclaimed u ON u.workspace_id = s.workspace_id "
            "WHERE s.slug = ?1 AND u.lapses_at <= ?2", (slug, call.now)).fetchall()  # fmt: skip
        if not due:
            raise slug_taken()
        lapse(db, call, due[0][0])
        db.execute(insert, (slug, workspace))


def lapse(db, call, workspace: str) -> None:
    slot = db.execute("DELETE FROM unclaimed WHERE workspace_id = ?1 RETURNING slot", (workspace,)).fetchall()[0][0]
    db.execute("UPDATE bootstrap_slots SET used = used - 1 WHERE slot = ?1", (slot,))
    db.execute("DELETE FROM slugs WHERE slug = (SELECT slug FROM workspaces WHERE id = ?1) AND workspace_id = ?1",
               (workspace,))  # fmt: skip
    db.execute("UPDATE workspaces SET state = 'lapsed' WHERE id = ?1", (workspace,))
    _audit(db, call, workspace, "workspaces", "workspace.lapse", ("workspace", workspace, None), (None, None),
           metadata(call))  # fmt: skip


def free_slot(db, call, workspace: str, limit: int) -> int:
    """A row of the count of unclaimed workspaces with space for one more (503 if all rows are full)."""
    first = int(workspace[:2], 16)
    for _ in range(2):
        for step in range(schema.SLOTS):
            slot = (first + step) % schema.SLOTS
            share = limit // schema.SLOTS + (slot < limit % schema.SLOTS)
            db.execute("UPDATE bootstrap_slots SET used = used + 1 WHERE slot = ?1 AND used < ?2", (slot, share))
            if db.changes() == 1:
                return slot
        for (due,) in db.execute("SELECT workspace_id FROM unclaimed WHERE lapses_at <= ?1 ORDER BY lapses_at LIMIT ?2",
                                 (call.now, LAPSED_AT_ONCE)).fetchall():  # fmt: skip
            lapse(db, call, due)
    raise too_many_unclaimed()


def bootstrap(db, call, new, limits) -> bytes:
    workspace, (limit, lifetime_us) = ordered_id(call.us), limits
    # The slot comes first. A taken slug returns the slot, and a missing slot leaves the slug free.
    slot = free_slot(db, call, workspace, limit)
    try:
        take_slug(db, call, new.slug, workspace)
    except Refusal:
        db.execute("UPDATE bootstrap_slots SET used = used - 1 WHERE slot = ?1", (slot,))
        raise
    db.execute("INSERT INTO unclaimed (workspace_id, slot, lapses_at) VALUES (?1, ?2, ?3)",
               (workspace, slot, time_text(call.us + lifetime_us)))  # fmt: skip
    row = new_workspace_row(workspace, new, call.now)
    db.execute(INSERT_WORKSPACE, (*row, "unclaimed", 0))
    _audit(db, call, workspace, "workspaces", "workspace.create", ("workspace", workspace, new.slug), (None, None),
           beginnings(call, new))  # fmt: skip
    return workspace_body(row)


def join(db, call, principal: str, workspace: str, role: str, seat: int) -> None:
    position = _position(db, "principals", principal, call.us)
    db.execute("INSERT INTO memberships (workspace_id, principal_id, role, position, seat, created_at) "
               "VALUES (?1, ?2, ?3, ?4, ?5, ?6)", (workspace, principal, role, position, seat, call.now))  # fmt: skip
    db.execute("INSERT INTO seats (workspace_id, seat, principal_id) VALUES (?1, ?2, ?3)", (workspace, seat, principal))


def create_own(db, call, new) -> bytes:
    entry = held(db, call, "Workspace.create")
    workspace = ordered_id(call.us)
    take_slug(db, call, new.slug, workspace)
    row = new_workspace_row(workspace, new, call.now)
    db.execute(INSERT_WORKSPACE, (*row, "active", call.us))
    join(db, call, entry.principal, workspace, "owner", call.us)
    _audit(db, call, workspace, "workspaces", "workspace.create", ("workspace", workspace, new.slug),
           (entry.principal, entry.credential), beginnings(call, new))  # fmt: skip
    return workspace_body(row)


def touch(row: list, call) -> None:
    """A time strictly after the last change, even if the clock is behind."""
    row[UPDATED_AT] = call.now if call.now > row[UPDATED_AT] else time_text(micros(row[UPDATED_AT]) + 1)


def update(db, call, change) -> bytes:
    entry = held(db, call, "Workspace.update")
    row, changes = patched(entry.workspace, change)
    if changes:
        touch(row, call)
        db.execute(UPDATE_WORKSPACE, row)
        _of_workspace(db, call, entry, "workspace.update", metadata(call, changes=changes))
    return workspace_body(row)


def provision(db, call) -> bytes:
    entry = held(db, call, "Workspace.update")
    row = list(entry.workspace)
    seeded = bool(row[CONNECTOR]) and seed(db, call, row[0], row[CONNECTOR])
    first = row[PROVISIONED_AT] is None
    if first:
        row[PROVISIONED_AT] = call.now
        touch(row, call)
        db.execute(UPDATE_WORKSPACE, row)
    if first or seeded:
        facts = metadata(call, connector_type=row[CONNECTOR], integration_seeded=seeded)
        _of_workspace(db, call, entry, "workspace.provision", facts)
    return provisioned_body(row)


def seed(db, call, workspace: str, connector: str) -> bool:
    found = "SELECT 1 FROM integrations WHERE workspace_id = ?1 AND name = ?2"
    if db.execute(found, (workspace, connector)).fetchall():
        return False
    position = _position(db, "workspaces", workspace, call.us)
    db.execute("INSERT INTO integrations (workspace_id, id, name, display_name, protocol, base_url, endpoints, enabled, "
               "builtin, position, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, '[]', 0, 1, ?7, ?8, ?8)",
               (workspace, ordered_id(call.us), connector, *schema.CONNECTORS[connector], position, call.now))  # fmt: skip
    return True


def archive(db, call, slug: str) -> bytes:
    entry = held(db, call, "Workspace.update")
    row = list(entry.workspace)
    touch(row, call)
    db.execute(UPDATE_WORKSPACE, row)
    db.execute("UPDATE workspaces SET state = 'archived' WHERE id = ?1", (row[0],))
    db.execute("UPDATE memberships SET position = -position WHERE workspace_id = ?1 AND position > 0", (row[0],))
    _of_workspace(db, call, entry, "workspace.archive", metadata(call))
    return workspace_body(row)


def numbers(db, workspace: str) -> list[str]:
    rows = db.execute("SELECT number FROM test_callers WHERE workspace_id = ?1 ORDER BY ordinal", (workspace,))
    return [number for (number,) in rows.fetchall()]


def set_test_callers(db, call, wanted: list[str]) -> bytes:
    entry = held(db, call, "Workspace.update")
    workspace, wanted = entry.workspace[0], without_repeats(wanted)
    former = numbers(db, workspace)
    if former != wanted:
        version = 1 + db.execute("SELECT coalesce(max(version), 0) FROM test_caller_lists WHERE workspace_id = ?1",
                                 (workspace,)).fetchall()[0][0]  # fmt: skip
        keep = "INSERT INTO test_caller_lists (workspace_id, version, numbers, set_at) VALUES (?1, ?2, ?3, ?4)"
        if version == 1:
            db.execute(keep, (workspace, 0, orjson.dumps(former).decode(), entry.workspace[CREATED_AT]))
        db.execute("DELETE FROM test_callers WHERE workspace_id = ?1", (workspace,))
        for ordinal, number in enumerate(wanted):
            db.execute("INSERT INTO test_callers (workspace_id, ordinal, number) VALUES (?1, ?2, ?3)",
                       (workspace, ordinal, number))  # fmt: skip
        db.execute(keep, (workspace, version, orjson.dumps(wanted).decode(), call.now))
        facts = metadata(call, changes={"numbers": {"from": former, "to": wanted}}, list_version=version)
        _of_workspace(db, call, entry, "test_callers.update", facts)
    return numbers_body(wanted)


def insert_key(db, call, workspace: str, principal: str, kind: str, key: dict, secret_hash: bytes) -> None:
    position = _position(db, "workspaces", workspace, call.us)
    db.execute("INSERT INTO api_keys (key_id, id, workspace_id, principal_id, principal_kind, created_by_entity_id, "
               "created_by_credential_id, name, role, permissions, secret_hash, position, expires_at, created_at, "
               "updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14)",
               (key["key_id"], key["id"], workspace, principal, kind, key["created_by"], key["created_with"],
                key["name"], key["role"], key["permissions"], secret_hash, position, time_text(key["expires_us"]),
                call.now))  # fmt: skip


def of_key(db, call, workspace: str, action: str, key: dict, actor: tuple) -> None:
    _audit(db, call, workspace, "api_keys", action, ("api_key", key["id"], key["name"]), actor, key_facts(call, key))


def new_principal(db, call, kind: str, name: str | None) -> str:
    principal = ordered_id(call.us)
    db.execute("INSERT INTO principals (id, kind, last_position, created_at, display_name) VALUES (?1, ?2, 0, ?3, ?4)",
               (principal, kind, call.now, name))  # fmt: skip
    return principal


def described(call, new, key_id: str, role: str, permissions: str, created_by: str, created_with: str | None) -> dict:
    return {
        "id": ordered_id(call.us), "key_id": key_id, "name": new.name, "role": role, "permissions": permissions,
        "expires_us": expiry(call.us, new.duration_days), "created_by": created_by, "created_with": created_with,
    }  # fmt: skip


def claim(db, call, workspace: str, new) -> bytes:
    slot = db.execute("DELETE FROM unclaimed WHERE workspace_id = ?1 AND lapses_at > ?2 RETURNING slot",
                      (workspace, call.now)).fetchall()  # fmt: skip
    if not slot:
        raise unauthorized()
    db.execute("UPDATE bootstrap_slots SET used = used - 1 WHERE slot = ?1", slot[0])
    db.execute("UPDATE workspaces SET state = 'active' WHERE id = ?1", (workspace,))
    principal = new_principal(db, call, "user", None)
    join(db, call, principal, workspace, "owner", _position(db, "workspaces", workspace, call.us))
    key_id, text, secret_hash = new_key()
    key = described(call, new, key_id, "owner", "[]", principal, None)
    insert_key(db, call, workspace, principal, "user", key, secret_hash)
    of_key(db, call, workspace, "workspace.claim", key, (principal, key["id"]))
    return key_body(key, text)


def mint(db, call, new) -> bytes:
    entry = held(db, call, "ApiKey.create")
    permissions = orjson.dumps(new.permissions).decode()
    if not entry.reach.covers(narrowed(new.role, permissions)):
        raise beyond_caller()
    if new.speaks_for == "self" and entry.kind != "user":
        raise unsupported_principal()
    workspace = entry.workspace[0]
    if new.speaks_for == "self":
        principal, kind = entry.principal, entry.kind
    else:
        principal, kind = new_principal(db, call, "service", new.name), "service"
        join(db, call, principal, workspace, new.role, _position(db, "workspaces", workspace, call.us))
    key_id, text, secret_hash = new_key()
    key = described(call, new, key_id, new.role, permissions, entry.principal, entry.credential)
    insert_key(db, call, workspace, principal, kind, key, secret_hash)
    of_key(db, call, workspace, "api_key.create", key, (entry.principal, entry.credential))
    return key_body(key, text)


def live_key(db, workspace: str, key_id: str) -> tuple[dict, str, str, str]:
    """A key with its principal, the principal's kind, and its last change (404 if the key does not exist)."""
    found = db.execute(KEY, (key_id, workspace)).fetchall()
    if not found:
        raise no_api_key()
    ident, principal, kind, name, role, permissions, updated_at, created_by, created_with = found[0]
    key = {"id": ident, "key_id": key_id, "name": name, "role": role, "permissions": permissions,
           "created_by": created_by, "created_with": created_with}  # fmt: skip
    return key, principal, kind, updated_at


def rotate(db, call, key_id: str, days: int) -> bytes:
    entry = held(db, call, "ApiKey.create")
    key, principal, kind, updated_at = live_key(db, entry.workspace[0], key_id)
    if kind == "user" and principal != entry.principal:
        raise not_your_key()
    if key["id"] != entry.credential and not entry.reach.covers(narrowed(key["role"], key["permissions"])):
        raise beyond_caller()
    key["expires_us"] = expiry(call.us, days)
    _, text, secret_hash = new_key(key_id)
    changed = call.now if call.now > updated_at else time_text(micros(updated_at) + 1)
    db.execute("UPDATE api_keys SET secret_hash = ?2, expires_at = ?3, updated_at = ?4 WHERE key_id = ?1",
               (key_id, secret_hash, time_text(key["expires_us"]), changed))  # fmt: skip
    of_key(db, call, entry.workspace[0], "api_key.rotate", key, (entry.principal, entry.credential))
    return key_body(key, text)


def revoke(db, call, key_id: str) -> None:
    entry = held(db, call, "ApiKey.delete")
    workspace = entry.workspace[0]
    key, principal, kind, _ = live_key(db, workspace, key_id)
    if key["id"] != entry.credential and not entry.reach.covers(narrowed(key["role"], key["permissions"])):
        raise beyond_caller()
    key["expires_us"] = call.us
    db.execute("UPDATE api_keys SET revoked_at = ?2, updated_at = ?2, position = -position WHERE key_id = ?1",
               (key_id, call.now))  # fmt: skip
    if kind == "service":
        db.execute("DELETE FROM seats WHERE workspace_id = ?1 AND seat = "
                   "(SELECT seat FROM memberships WHERE workspace_id = ?1 AND principal_id = ?2)",
                   (workspace, principal))  # fmt: skip
        db.execute("DELETE FROM memberships WHERE workspace_id = ?1 AND principal_id = ?2", (workspace, principal))
    of_key(db, call, workspace, "api_key.revoke", key, (entry.principal, entry.credential))


def store_last_used(db, used: dict[str, int]) -> None:
    for key_id, us in used.items():
        db.execute("UPDATE api_keys SET last_used_at = ?2 WHERE key_id = ?1 "
                   "AND (last_used_at IS NULL OR last_used_at < ?2)", (key_id, time_text(us)))  # fmt: skip

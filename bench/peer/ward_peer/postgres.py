"""The operations on PostgreSQL.

Every read and every measured write is one statement, so one round trip and, for a write, one transaction of its own:
data-modifying CTEs change the row and record the event together. Rare requests use an ordinary transaction.
"""

import asyncio
import itertools
import os
from collections import deque
from contextlib import asynccontextmanager

import asyncpg
import orjson

from ward_peer import schema
from ward_peer.access import (
    NIL, Entry, Refusal, beyond_caller, moment, narrowed, new_key, no_api_key, not_your_key, ordered_id,
    recognize, require, slug_taken, too_many_unclaimed, unauthorized, unsupported_principal,
)  # fmt: skip
from ward_peer.answers import (
    CONNECTOR, CREATED_AT, PROVISIONED_AT, SLUG, TOTAL_LIMIT, beginnings, expiry, key_body, key_facts, metadata,
    new_workspace_row, numbers_body, page_body, provisioned_body, without_repeats, workspace_body,
)  # fmt: skip

# Connections per worker: enough to use the server's cores and to share flushes, with few sessions.
CONNECTIONS = 12
LAPSED_AT_ONCE = 100

# Queries return ids as text, because the driver's UUID type is slower and would be converted to text anyway.
WORKSPACE = """w.id::text, w.slug, w.name, w.environment, w.backend_org_id, w.region, w.connector_type,
    w.provisioned_at, w.created_at, w.updated_at"""
# One statement: the key, its home's state, the caller's role in the requested workspace, and that workspace. The pair is
# between itself and itself. Only the primary key can find that, so the planner cannot choose the index by principal.
GATE = f"""SELECT k.secret_hash, k.id::text, k.principal_id::text, k.principal_kind, k.role,
    k.permissions, k.expires_at, k.revoked_at, h.state, m.role, {WORKSPACE}
    FROM api_keys k JOIN workspaces h ON h.id = k.workspace_id
    LEFT JOIN memberships m ON (m.workspace_id, m.principal_id) >= ($2::uuid, k.principal_id)
        AND (m.workspace_id, m.principal_id) <= ($2::uuid, k.principal_id)
    LEFT JOIN workspaces w ON w.id = m.workspace_id AND w.state = 'active'
    WHERE k.key_id = $1"""
LIST = f"""SELECT {WORKSPACE}, m.position,
    (SELECT count(*) FROM (SELECT 1 FROM memberships WHERE principal_id = $1 AND position > 0 LIMIT {TOTAL_LIMIT + 1}) c)
    FROM memberships m JOIN workspaces w ON w.id = m.workspace_id
    WHERE m.principal_id = $1 AND m.position > $2 AND m.position > 0 ORDER BY m.position LIMIT $3"""
COUNT = f"""SELECT count(*) FROM
    (SELECT 1 FROM memberships WHERE principal_id = $1 AND position > 0 LIMIT {TOTAL_LIMIT + 1}) c"""
NUMBERS = "SELECT number FROM test_callers WHERE workspace_id = $1 ORDER BY ordinal"

EVENT = """INSERT INTO audit_events (workspace_id, at, id, service, action, resource_type, resource_id, resource_name,
    actor_entity_id, actor_credential_id, ip_address, user_agent, phi_accessed, metadata)"""
AUDIT = f"{EVENT} VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, false, $13)"
INSERT_WORKSPACE = """INSERT INTO workspaces (id, slug, name, environment, backend_org_id, region, connector_type,
    provisioned_at, created_at, updated_at, state, last_position)"""
# The division fails, and with it the whole statement, if a step had no effect. A transaction then finds the reason.
BOOTSTRAP = f"""WITH slot AS (UPDATE bootstrap_slots SET used = used + 1 WHERE slot = $7 AND used < $8 RETURNING slot),
    held AS (INSERT INTO slugs (slug, workspace_id) SELECT $2, $1::uuid FROM slot ON CONFLICT (slug) DO NOTHING
        RETURNING slug),
    unclaimed AS (INSERT INTO unclaimed (workspace_id, slot, lapses_at) SELECT $1, $7, $9 FROM held),
    workspace AS ({INSERT_WORKSPACE} SELECT $1, $2, $3, $4, $5, $6, NULL, NULL, $10, $10, 'unclaimed', 0 FROM held),
    event AS ({EVENT} SELECT $1, $10, $11, 'workspaces', 'workspace.create', 'workspace', $1, $2, NULL, NULL, $12, $13,
        false, $14 FROM held)
    SELECT 1 / (SELECT count(*) FROM held)"""
# The check that the caller's key is still valid.
GOOD_KEY = """SELECT 1 FROM api_keys k JOIN workspaces h ON h.id = k.workspace_id AND h.state = 'active'
    WHERE k.key_id = {key} AND k.secret_hash = {hash} AND k.revoked_at IS NULL AND k.expires_at > {now}"""
CREATE_OWN = f"""WITH mine AS (UPDATE principals SET last_position = greatest(last_position + 1, $7) WHERE id = $8
        AND EXISTS ({GOOD_KEY.format(key="$15", hash="$16", now="$10")}) RETURNING last_position),
    held AS (INSERT INTO slugs (slug, workspace_id) SELECT $2, $1::uuid FROM mine ON CONFLICT (slug) DO NOTHING
        RETURNING slug),
    workspace AS ({INSERT_WORKSPACE} SELECT $1, $2, $3, $4, $5, $6, NULL, NULL, $10, $10, 'active', $7 FROM held),
    member AS (INSERT INTO memberships (workspace_id, principal_id, role, position, seat, created_at)
        SELECT $1, $8, 'owner', mine.last_position, $7, $10 FROM held, mine),
    seat AS (INSERT INTO seats (workspace_id, seat, principal_id) SELECT $1, $7, $8 FROM held),
    event AS ({EVENT} SELECT $1, $10, $11, 'workspaces', 'workspace.create', 'workspace', $1, $2, $8, $9, $12, $13,
        false, $14 FROM held)
    SELECT 1 / (SELECT count(*) FROM held)"""
# The check of the caller within a write's own statement: a valid key, and a membership in the changed workspace.
STILL = f"""EXISTS ({GOOD_KEY}) AND EXISTS (SELECT 1 FROM memberships m
    WHERE m.workspace_id = {{workspace}} AND m.principal_id = {{principal}} AND m.role = {{role}})"""
# The row is locked, so concurrent writes do not change the old values before they are replaced. `$3` is the patch:
# the given fields, by name.
UPDATE = f"""WITH old AS (SELECT {WORKSPACE} FROM workspaces w WHERE w.id = $1::uuid AND w.state = 'active'
        AND {STILL.format(key="$9", hash="$10", now="$2", workspace="$1", principal="$4", role="$11")}
        FOR UPDATE OF w),
    wanted AS (SELECT old.*, coalesce(patch ->> 'name', name) AS n, coalesce(patch ->> 'environment', environment) AS e,
        coalesce(patch ->> 'region', region) AS r,
        CASE WHEN patch ? 'connector_type' THEN patch ->> 'connector_type' ELSE connector_type END AS c
        FROM old, (SELECT $3::jsonb AS patch) given),
    new AS (UPDATE workspaces w SET name = n, environment = e, region = r, connector_type = c,
        updated_at = greatest($2, old.updated_at + interval '1 microsecond')
        FROM wanted old WHERE w.id = $1
        AND (n, e, r, c) IS DISTINCT FROM (old.name, old.environment, old.region, old.connector_type)
        RETURNING {WORKSPACE}),
    event AS ({EVENT} SELECT $1, $2, $6, 'workspaces', 'workspace.update', 'workspace', $1, new.slug, $4, $5, $7, $8,
        false, jsonb_build_object('changes', (SELECT jsonb_object_agg(field, jsonb_build_object('from', a, 'to', b))
            FROM (VALUES ('name', old.name, new.name), ('environment', old.environment, new.environment),
                ('region', old.region, new.region), ('connector_type', old.connector_type, new.connector_type))
                change (field, a, b) WHERE a IS DISTINCT FROM b), 'request_id', $12::text) FROM old, new)
    SELECT * FROM new UNION ALL SELECT * FROM old WHERE NOT EXISTS (SELECT 1 FROM new)"""
KEY = """SELECT id::text, principal_id::text, principal_kind, name, role, permissions, created_by_entity_id::text,
    created_by_credential_id::text, secret_hash FROM api_keys WHERE key_id = $1 AND workspace_id = $2::uuid
    AND position > 0"""
# A key that rotates itself must still have the presented secret, so only the first of two such rotations succeeds.
ROTATE = f"""WITH changed AS (UPDATE api_keys SET secret_hash = $3, expires_at = $4,
        updated_at = greatest($2, updated_at + interval '1 microsecond')
        WHERE key_id = $5 AND position > 0 AND ($5 <> $10 OR secret_hash = $11)
        AND {STILL.format(key="$10", hash="$11", now="$2", workspace="$1", principal="$8", role="$13")} RETURNING id, name),
    event AS ({EVENT} SELECT $1::uuid, $2, $6, 'api_keys', 'api_key.rotate', 'api_key', id, name, $8, $9, $7, $14,
        false, $12 FROM changed)
    SELECT count(*) FROM changed"""


class Session:
    """A connection with its prepared statements."""

    def __init__(self, raw: asyncpg.Connection) -> None:
        self.raw = raw
        self.statements = {}

    async def statement(self, sql: str):
        found = self.statements.get(sql)
        if found is None:
            found = self.statements[sql] = await self.raw.prepare(sql)
        return found

    async def all(self, sql: str, *values) -> list:
        return await (await self.statement(sql)).fetch(*values)

    async def one(self, sql: str, *values):
        return await (await self.statement(sql)).fetchrow(*values)

    async def value(self, sql: str, *values):
        return await (await self.statement(sql)).fetchval(*values)


class Postgres:
    """The engine of one worker: a pool that returns the most recently used connection and resets none."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.free: deque[Session] = deque()
        self.waiting: deque[asyncio.Future] = deque()
        self.slots = itertools.count(os.getpid())

    def prepare(self) -> None:
        """Creates the tables that do not exist yet."""

        async def make() -> None:
            raw = await asyncpg.connect(self.url)
            await raw.execute("BEGIN; SELECT pg_advisory_xact_lock(7); " + schema.postgres() + " COMMIT")
            await raw.close()

        asyncio.run(make())

    async def start(self) -> None:
        # These statements find rows by their keys. A new plan per use has no benefit, nor has a plan for a small table.
        settings = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off",
                    "statement_timeout": "10000", "application_name": "ward-peer"}  # fmt: skip
        for _ in range(CONNECTIONS):
            raw = await asyncpg.connect(self.url, server_settings=settings, statement_cache_size=0)
            self.free.append(Session(raw))

    async def stop(self) -> None:
        for session in self.free:
            await session.raw.close()

    @asynccontextmanager
    async def session(self):
        session = await self.take()
        try:
            yield session
        finally:
            self.give(session)

    async def take(self) -> Session:
        if self.free:
            return self.free.pop()
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return await future

    def give(self, session: Session) -> None:
        while self.waiting:
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(session)
                return
        self.free.append(session)

    async def one(self, sql: str, *values):
        session = await self.take()
        try:
            return await session.one(sql, *values)
        finally:
            self.give(session)

    async def all(self, sql: str, *values) -> list:
        session = await self.take()
        try:
            return await session.all(sql, *values)
        finally:
            self.give(session)

    async def once(self, sql: str, *values) -> bool:
        """Whether a statement with such a division had its effect."""
        try:
            await self.one(sql, *values)
        except asyncpg.DivisionByZeroError:
            return False
        return True

    @asynccontextmanager
    async def transaction(self):
        async with self.session() as session:
            async with session.raw.transaction():
                yield session

    # Reads

    async def admit(self, call, key_id: str, secret_hash: bytes, workspace: str | None) -> Entry:
        return recognize(await self.one(GATE, key_id, workspace or NIL), moment(call.us), key_id, secret_hash)

    async def list_workspaces(self, entry: Entry, after: int, limit: int) -> bytes:
        rows = await self.all(LIST, entry.principal, after, limit + 1)
        counted = rows[0][11] if rows else (await self.one(COUNT, entry.principal))[0]
        return page_body(rows, limit, counted)

    async def test_callers(self, entry: Entry) -> bytes:
        return numbers_body([row[0] for row in await self.all(NUMBERS, entry.workspace[0])])

    # Writes of one statement

    async def bootstrap(self, call, new, limits) -> bytes:
        limit, lifetime_us = limits
        workspace, slot = ordered_id(call.us), next(self.slots) % schema.SLOTS
        now, facts = moment(call.us), beginnings(call, new)
        share = limit // schema.SLOTS + (slot < limit % schema.SLOTS)
        values = (workspace, new.slug, new.name, new.environment, new.backend_org_id, new.region, slot, share,
                  moment(call.us + lifetime_us), now, ordered_id(call.us), call.address, call.user_agent, facts)  # fmt: skip
        for attempt in range(3):
            if await self.once(BOOTSTRAP, *values):
                return workspace_body(new_workspace_row(workspace, new, call.now))
            values = (*values[:6], *await self.make_room(call, new.slug, limit), *values[8:])
        raise slug_taken()

    async def create_own(self, call, new) -> bytes:
        workspace, entry = ordered_id(call.us), call.entry
        for _ in range(3):
            if await self.once(CREATE_OWN, workspace, new.slug, new.name, new.environment, new.backend_org_id, new.region,
                               call.us, entry.principal, entry.credential, moment(call.us), ordered_id(call.us),
                               call.address, call.user_agent, beginnings(call, new), entry.key_id,
                               entry.secret_hash):  # fmt: skip
                return workspace_body(new_workspace_row(workspace, new, call.now))
            await self.admit(call, entry.key_id, entry.secret_hash, None)
            await self.make_room(call, new.slug, None)
        raise slug_taken()

    async def make_room(self, call, slug: str, limit: int | None) -> tuple[int, int] | None:
        """Removes an expired holder of the slug (409 if it is not expired), and finds a slot with space (503 if none)."""
        async with self.transaction() as tx:
            due = await tx.one("SELECT u.workspace_id, u.lapses_at <= $2 AS due FROM slugs s LEFT JOIN unclaimed u "
                               "ON u.workspace_id = s.workspace_id WHERE s.slug = $1", slug, moment(call.us))  # fmt: skip
            if due is not None:
                if not due["due"]:
                    raise slug_taken()
                await lapse(tx, call, due["workspace_id"])
            if limit is None:
                return None
            for _ in range(2):
                for slot, used in await tx.all("SELECT slot, used FROM bootstrap_slots ORDER BY used"):
                    share = limit // schema.SLOTS + (slot < limit % schema.SLOTS)
                    if used < share:
                        return slot, share
                for row in await tx.all("SELECT workspace_id FROM unclaimed WHERE lapses_at <= $1 ORDER BY lapses_at "
                                        "LIMIT $2", moment(call.us), LAPSED_AT_ONCE):  # fmt: skip
                    await lapse(tx, call, row[0])
            raise too_many_unclaimed()

    async def update(self, call, change) -> bytes:
        entry = call.entry
        # Null clears the connector and does not change the other fields.
        patch = {field: value for field, value in change.model_dump(exclude_unset=True).items()
                 if value is not None or field == "connector_type"}  # fmt: skip
        row = await self.one(UPDATE, entry.workspace[0], moment(call.us), orjson.dumps(patch).decode(), entry.principal,
                             entry.credential, ordered_id(call.us), call.address, call.user_agent, entry.key_id,
                             entry.secret_hash, entry.role, call.request_id)  # fmt: skip
        if row is None:
            # The state has changed since the check. The second check gives the reason.
            await self.again(call, "Workspace.update")
            return await self.update(call, change)
        return workspace_body(row)

    async def again(self, call, need: str) -> None:
        before = call.entry
        call.entry = await self.admit(call, before.key_id, before.secret_hash, before.workspace[0])
        require(call.entry, need, True)

    async def rotate(self, call, key_id: str, days: int) -> bytes:
        entry = call.entry
        key, principal, kind = live_key(await self.one(KEY, key_id, entry.workspace[0]), key_id)
        if kind == "user" and principal != entry.principal:
            raise not_your_key()
        if key["id"] != entry.credential and not entry.reach.covers(narrowed(key["role"], key["permissions"])):
            raise beyond_caller()
        key["expires_us"] = expiry(call.us, days)
        _, text, secret_hash = new_key(key_id)
        changed = await self.one(ROTATE, entry.workspace[0], moment(call.us), secret_hash, moment(key["expires_us"]),
                                 key_id, ordered_id(call.us), call.address, entry.principal, entry.credential,
                                 entry.key_id, entry.secret_hash, key_facts(call, key), entry.role,
                                 call.user_agent)  # fmt: skip
        if changed[0] == 0:
            await self.again(call, "ApiKey.create")
            return await self.rotate(call, key_id, days)
        return key_body(key, text)

    # Writes of a transaction

    async def provision(self, call) -> bytes:
        async with self.transaction() as tx:
            entry = await held(tx, call, "Workspace.update")
            row, now = entry.workspace, moment(call.us)
            seeded = bool(row[CONNECTOR]) and await seed(tx, call, row[0], row[CONNECTOR])
            first = row[PROVISIONED_AT] is None
            if first:
                row = await tx.one(f"UPDATE workspaces w SET provisioned_at = $2, updated_at = greatest($2, updated_at + "
                                   f"interval '1 microsecond') WHERE id = $1::uuid RETURNING {WORKSPACE}", row[0], now)  # fmt: skip
            if first or seeded:
                facts = metadata(call, connector_type=row[CONNECTOR], integration_seeded=seeded)
                await of_workspace(tx, call, entry, "workspace.provision", facts)
            return provisioned_body(row)

    async def archive(self, call, slug: str) -> bytes:
        async with self.transaction() as tx:
            entry = await held(tx, call, "Workspace.update")
            workspace = entry.workspace[0]
            row = await tx.one(f"UPDATE workspaces w SET state = 'archived', updated_at = greatest($2, updated_at + "
                               f"interval '1 microsecond') WHERE id = $1::uuid RETURNING {WORKSPACE}",
                               workspace, moment(call.us))  # fmt: skip
            await tx.all("UPDATE memberships SET position = -position WHERE workspace_id = $1 AND position > 0", workspace)
            await of_workspace(tx, call, entry, "workspace.archive", metadata(call))
            return workspace_body(row)

    async def set_test_callers(self, call, wanted: list[str]) -> bytes:
        wanted = without_repeats(wanted)
        async with self.transaction() as tx:
            entry = await held(tx, call, "Workspace.update")
            workspace = entry.workspace[0]
            former = [row[0] for row in await tx.all(NUMBERS, workspace)]
            if former == wanted:
                return numbers_body(wanted)
            version = 1 + await tx.value("SELECT coalesce(max(version), 0) FROM test_caller_lists WHERE workspace_id = $1",
                                         workspace)  # fmt: skip
            keep = "INSERT INTO test_caller_lists (workspace_id, version, numbers, set_at) VALUES ($1, $2, $3, $4)"
            if version == 1:
                await tx.all(keep, workspace, 0, orjson.dumps(former).decode(), entry.workspace[CREATED_AT])
            await tx.all("DELETE FROM test_callers WHERE workspace_id = $1", workspace)
            await tx.all("INSERT INTO test_callers (workspace_id, ordinal, number) SELECT $1::uuid, o - 1, n "
                         "FROM unnest($2::text[]) WITH ORDINALITY t (n, o)", workspace, wanted)  # fmt: skip
            await tx.all(keep, workspace, version, orjson.dumps(wanted).decode(), moment(call.us))
            facts = metadata(call, changes={"numbers": {"from": former, "to": wanted}}, list_version=version)
            await of_workspace(tx, call, entry, "test_callers.update", facts)
            return numbers_body(wanted)

    async def claim(self, call, workspace: str, new) -> bytes:
        async with self.transaction() as tx:
            slot = await tx.value("DELETE FROM unclaimed WHERE workspace_id = $1 AND lapses_at > $2 RETURNING slot",
                                  workspace, moment(call.us))  # fmt: skip
            if slot is None:
                raise unauthorized()
            await tx.all("UPDATE bootstrap_slots SET used = used - 1 WHERE slot = $1", slot)
            await tx.all("UPDATE workspaces SET state = 'active' WHERE id = $1", workspace)
            principal = await new_principal(tx, call, "user", None)
            await join(tx, call, principal, workspace, "owner")
            key, text = await insert_key(tx, call, workspace, principal, "user", new, "owner", "[]", (principal, None))
            await of_key(tx, call, workspace, "workspace.claim", key, (principal, key["id"]))
            return key_body(key, text)

    async def mint(self, call, new) -> bytes:
        permissions = orjson.dumps(new.permissions).decode()
        async with self.transaction() as tx:
            entry = await held(tx, call, "ApiKey.create")
            if not entry.reach.covers(narrowed(new.role, permissions)):
                raise beyond_caller()
            if new.speaks_for == "self" and entry.kind != "user":
                raise unsupported_principal()
            workspace, actor = entry.workspace[0], (entry.principal, entry.credential)
            principal, kind = entry.principal, entry.kind
            if new.speaks_for == "service":
                principal, kind = await new_principal(tx, call, "service", new.name), "service"
                await join(tx, call, principal, workspace, new.role)
            key, text = await insert_key(tx, call, workspace, principal, kind, new, new.role, permissions, actor)
            await of_key(tx, call, workspace, "api_key.create", key, actor)
            return key_body(key, text)

    async def revoke(self, call, key_id: str) -> None:
        async with self.transaction() as tx:
            entry = await held(tx, call, "ApiKey.delete")
            workspace = entry.workspace[0]
            key, principal, kind = live_key(await tx.one(KEY, key_id, workspace), key_id)
            if key["id"] != entry.credential and not entry.reach.covers(narrowed(key["role"], key["permissions"])):
                raise beyond_caller()
            key["expires_us"] = call.us
            await tx.all("UPDATE api_keys SET revoked_at = $2, updated_at = $2, position = -position WHERE key_id = $1",
                         key_id, moment(call.us))  # fmt: skip
            if kind == "service":
                await tx.all("DELETE FROM seats WHERE workspace_id = $1 AND seat = "
                             "(SELECT seat FROM memberships WHERE workspace_id = $1 AND principal_id = $2)",
                             workspace, principal)  # fmt: skip
                await tx.all("DELETE FROM memberships WHERE workspace_id = $1 AND principal_id = $2", workspace, principal)
            await of_key(tx, call, workspace, "api_key.revoke", key, (entry.principal, entry.credential))

    async def store_last_used(self, used: dict[str, int]) -> None:
        await self.all("UPDATE api_keys k SET last_used_at = u.at FROM unnest($1::text[], $2::timestamptz[]) u (key_id, at) "
                       "WHERE k.key_id = u.key_id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)",
                       list(used), [moment(us) for us in used.values()])  # fmt: skip


async def held(tx: Session, call, need: str) -> Entry:
    """Locks the workspace's row, then checks the caller again within the transaction."""
    before = call.entry
    workspace = before.workspace[0]
    await tx.all("SELECT 1 FROM workspaces WHERE id = $1 FOR UPDATE", workspace)
    found = await tx.one(GATE, before.key_id, workspace)
    entry = recognize(found, moment(call.us), before.key_id, before.secret_hash)
    require(entry, need, True)
    return entry


async def audit(tx: Session, call, workspace: str, service: str, action: str, resource: tuple, actor: tuple, facts) -> None:
    """`resource` is kind, id and name; `actor` is principal and credential."""
    await tx.all(AUDIT, workspace, moment(call.us), ordered_id(call.us), service, action, *resource, *actor, call.address,
                 call.user_agent, facts)  # fmt: skip


async def of_workspace(tx: Session, call, entry: Entry, action: str, facts: str) -> None:
    row = entry.workspace
    await audit(tx, call, row[0], "workspaces", action, ("workspace", row[0], row[SLUG]),
                (entry.principal, entry.credential), facts)  # fmt: skip


async def of_key(tx: Session, call, workspace: str, action: str, key: dict, actor: tuple) -> None:
    await audit(tx, call, workspace, "api_keys", action, ("api_key", key["id"], key["name"]), actor, key_facts(call, key))


async def lapse(tx: Session, call, workspace) -> None:
    slot = await tx.value("DELETE FROM unclaimed WHERE workspace_id = $1 AND lapses_at <= $2 RETURNING slot",
                          workspace, moment(call.us))  # fmt: skip
    if slot is None:
        return
    await tx.all("UPDATE bootstrap_slots SET used = used - 1 WHERE slot = $1", slot)
    await tx.all("DELETE FROM slugs WHERE slug = (SELECT slug FROM workspaces WHERE id = $1) AND workspace_id = $1",
                 workspace)  # fmt: skip
    await tx.all("UPDATE workspaces SET state = 'lapsed' WHERE id = $1", workspace)
    await audit(tx, call, workspace, "workspaces", "workspace.lapse", ("workspace", workspace, None), (None, None),
                metadata(call))  # fmt: skip


async def next_position(tx: Session, table: str, row_id: str, us: int) -> int:
    return await tx.value(f"UPDATE {table} SET last_position = greatest(last_position + 1, $2) WHERE id = $1 "
                          "RETURNING last_position", row_id, us)  # fmt: skip


async def seed(tx: Session, call, workspace: str, connector: str) -> bool:
    if await tx.one("SELECT 1 FROM integrations WHERE workspace_id = $1 AND name = $2", workspace, connector):
        return False
    position = await next_position(tx, "workspaces", workspace, call.us)
    await tx.all("INSERT INTO integrations (workspace_id, id, name, display_name, protocol, base_url, endpoints, enabled, "
                 "builtin, position, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, '[]', false, true, $7, $8, $8)",
                 workspace, ordered_id(call.us), connector, *schema.CONNECTORS[connector], position,
                 moment(call.us))  # fmt: skip
    return True


async def new_principal(tx: Session, call, kind: str, name: str | None) -> str:
    principal = ordered_id(call.us)
    await tx.all("INSERT INTO principals (id, kind, last_position, created_at, display_name) VALUES ($1, $2, 0, $3, $4)",
                 principal, kind, moment(call.us), name)  # fmt: skip
    return principal


async def join(tx: Session, call, principal: str, workspace: str, role: str) -> None:
    position = await next_position(tx, "principals", principal, call.us)
    seat = await next_position(tx, "workspaces", workspace, call.us)
    await tx.all("WITH member AS (INSERT INTO memberships (workspace_id, principal_id, role, position, seat, created_at) "
                 "VALUES ($1, $2, $3, $4, $5, $6)) INSERT INTO seats (workspace_id, seat, principal_id) "
                 "VALUES ($1, $5, $2)", workspace, principal, role, position, seat, moment(call.us))  # fmt: skip


async def insert_key(tx: Session, call, workspace, principal, kind, new, role, permissions, creator) -> tuple[dict, str]:
    position = await next_position(tx, "workspaces", workspace, call.us)
    key_id, text, secret_hash = new_key()
    key = {"id": ordered_id(call.us), "key_id": key_id, "name": new.name, "role": role, "permissions": permissions,
           "expires_us": expiry(call.us, new.duration_days), "created_by": creator[0],
           "created_with": creator[1]}  # fmt: skip
    await tx.all("INSERT INTO api_keys (key_id, id, workspace_id, principal_id, principal_kind, created_by_entity_id, "
                 "created_by_credential_id, name, role, permissions, secret_hash, position, expires_at, created_at, "
                 "updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)",
                 key_id, key["id"], workspace, principal, kind, *creator, new.name, role, permissions, secret_hash,
                 position, moment(key["expires_us"]), moment(call.us))  # fmt: skip
    return key, text


def live_key(found, key_id: str) -> tuple[dict, str, str]:
    """A key with its principal and the principal's kind (404 if the key does not exist)."""
    if found is None:
        raise no_api_key()
    ident, principal, kind, name, role, permissions, created_by, created_with, _ = found
    key = {"id": ident, "key_id": key_id, "name": name, "role": role, "permissions": permissions,
           "created_by": created_by, "created_with": created_with}  # fmt: skip
    return key, principal, kind

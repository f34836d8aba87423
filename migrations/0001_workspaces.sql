-- oldest binary: 0.1.0
--
-- Tenants, who may enter them, with which key, and what was done.
-- Conventions: every primary key is led by the workspace or by the value looked up; a `position` orders a list and is
-- negative while the row is kept but not listed. Where a list's index is led by the workspace, what is looked up one by
-- one is led by its own value instead: two indexes that begin alike compete, and a planner that takes every workspace to
-- be small may look for one row among all of a big one's.

CREATE TABLE workspaces (
    id uuid NOT NULL PRIMARY KEY,
    slug text NOT NULL,
    name text NOT NULL,
    environment text NOT NULL,
    region text NOT NULL,
    backend_org_id text,
    connector_type text,
    state text NOT NULL CHECK (state IN ('unclaimed', 'active', 'archived', 'lapsed')),
    provisioned_at timestamptz,
    last_position bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
-- step
-- A slug is held here for as long as its workspace has not lapsed, archived ones included.
CREATE TABLE slugs (
    slug text NOT NULL PRIMARY KEY,
    workspace_id uuid NOT NULL
);
-- step
-- One row per unclaimed workspace. Claim and lapse each delete it on a condition that excludes the other.
CREATE TABLE unclaimed (
    workspace_id uuid NOT NULL PRIMARY KEY,
    slot bigint NOT NULL,
    lapses_at timestamptz NOT NULL
);
-- step
CREATE INDEX unclaimed_by_lapse ON unclaimed (lapses_at);
-- step
-- How many are unclaimed, spread over rows so that concurrent creations do not queue behind one.
CREATE TABLE bootstrap_slots (
    slot bigint NOT NULL PRIMARY KEY,
    used bigint NOT NULL CHECK (used >= 0)
);
-- step
INSERT INTO bootstrap_slots (slot, used)
VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0),
       (8, 0), (9, 0), (10, 0), (11, 0), (12, 0), (13, 0), (14, 0), (15, 0);
-- step
CREATE TABLE principals (
    id uuid NOT NULL PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('user', 'service')),
    last_position bigint NOT NULL,
    created_at timestamptz NOT NULL
);
-- step
CREATE TABLE memberships (
    workspace_id uuid NOT NULL,
    principal_id uuid NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'member', 'operator', 'admin', 'owner')),
    position bigint NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, principal_id)
);
-- step
CREATE UNIQUE INDEX memberships_by_principal ON memberships (principal_id, position);
-- step
-- `principal_kind` repeats the principal's, which never changes, so that a request is let in by one look-up.
-- `permissions` is a JSON list; an empty one means the whole role.
CREATE TABLE api_keys (
    key_id text NOT NULL PRIMARY KEY,
    id uuid NOT NULL,
    workspace_id uuid NOT NULL,
    principal_id uuid NOT NULL,
    principal_kind text NOT NULL CHECK (principal_kind IN ('user', 'service')),
    created_by_entity_id uuid,
    created_by_credential_id uuid,
    name text,
    role text NOT NULL CHECK (role IN ('viewer', 'member', 'operator', 'admin', 'owner')),
    permissions jsonb NOT NULL,
    secret_hash bytea NOT NULL,
    position bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
-- step
CREATE UNIQUE INDEX api_keys_by_workspace ON api_keys (workspace_id, position);
-- step
-- Not led by the workspace: a planner that takes every key to be of one creator would read the list above instead.
CREATE INDEX api_keys_by_creator ON api_keys (created_by_entity_id, workspace_id, position);
-- step
CREATE INDEX api_keys_by_principal ON api_keys (principal_id, workspace_id);
-- step
CREATE TABLE test_callers (
    workspace_id uuid NOT NULL,
    ordinal bigint NOT NULL,
    number text NOT NULL,
    PRIMARY KEY (workspace_id, ordinal)
);
-- step
CREATE UNIQUE INDEX test_callers_by_number ON test_callers (workspace_id, number);
-- step
CREATE TABLE integrations (
    workspace_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    display_name text NOT NULL,
    protocol text NOT NULL CHECK (protocol IN ('rest', 'fhir', 'mcp')),
    base_url text NOT NULL,
    auth jsonb,
    endpoints jsonb NOT NULL,
    mcp jsonb,
    enabled boolean NOT NULL,
    builtin boolean NOT NULL,
    position bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, id)
);
-- step
CREATE UNIQUE INDEX integrations_by_name ON integrations (workspace_id, name);
-- step
CREATE UNIQUE INDEX integrations_by_position ON integrations (workspace_id, position);
-- step
CREATE TABLE audit_events (
    workspace_id uuid NOT NULL,
    at timestamptz NOT NULL,
    id uuid NOT NULL,
    service text NOT NULL,
    action text NOT NULL,
    resource_type text NOT NULL,
    resource_id uuid,
    resource_name text,
    actor_entity_id uuid,
    actor_credential_id uuid,
    ip_address text,
    user_agent text,
    phi_accessed boolean NOT NULL,
    metadata jsonb,
    PRIMARY KEY (workspace_id, at, id)
);
-- step
-- Answers of repeatable writes. `scope` is a hash of who called what with which Idempotency-Key. A sealed body holds a
-- secret; `former_secret` is the hash of the one that a rotation ended. Once the secret is no longer shown, neither stands
-- here any more and nothing is sealed.
CREATE TABLE idempotency (
    scope text NOT NULL PRIMARY KEY,
    request bytea NOT NULL,
    status bigint NOT NULL,
    body bytea,
    sealed boolean NOT NULL,
    former_secret bytea,
    created_at timestamptz NOT NULL
);
-- step
CREATE INDEX idempotency_by_age ON idempotency (sealed, created_at);
-- step
CREATE TABLE settings (
    name text NOT NULL PRIMARY KEY,
    value text NOT NULL
);

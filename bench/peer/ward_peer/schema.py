"""The part of Ward's schema that the measured operations touch, in each engine's types.

The tables are created if they do not exist. They equal those of Ward, so the peer can serve a database of Ward's.
"""

from ward_peer.access import ROLES

_ROLE = f"text NOT NULL CHECK (role IN ({', '.join(repr(role) for role in ROLES)}))"
SLOTS = 16

_TABLES = f"""
CREATE TABLE IF NOT EXISTS workspaces (id uuid NOT NULL PRIMARY KEY, slug text NOT NULL, name text NOT NULL,
    environment text NOT NULL, region text NOT NULL, backend_org_id text, connector_type text,
    state text NOT NULL CHECK (state IN ('unclaimed', 'active', 'archived', 'lapsed')), provisioned_at timestamptz,
    last_position bigint NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS slugs (slug text NOT NULL PRIMARY KEY, workspace_id uuid NOT NULL);
CREATE TABLE IF NOT EXISTS unclaimed (workspace_id uuid NOT NULL PRIMARY KEY, slot bigint NOT NULL,
    lapses_at timestamptz NOT NULL);
CREATE INDEX IF NOT EXISTS unclaimed_by_lapse ON unclaimed (lapses_at);
CREATE TABLE IF NOT EXISTS bootstrap_slots (slot bigint NOT NULL PRIMARY KEY, used bigint NOT NULL CHECK (used >= 0));
INSERT INTO bootstrap_slots (slot, used) VALUES {", ".join(f"({slot}, 0)" for slot in range(SLOTS))}
    ON CONFLICT (slot) DO NOTHING;
CREATE TABLE IF NOT EXISTS principals (id uuid NOT NULL PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('user', 'service')), last_position bigint NOT NULL,
    created_at timestamptz NOT NULL, display_name text);
CREATE TABLE IF NOT EXISTS memberships (workspace_id uuid NOT NULL, principal_id uuid NOT NULL, role {_ROLE},
    position bigint NOT NULL, created_at timestamptz NOT NULL, seat bigint, PRIMARY KEY (workspace_id, principal_id));
CREATE UNIQUE INDEX IF NOT EXISTS memberships_by_principal ON memberships (principal_id, position) WHERE position > 0;
CREATE TABLE IF NOT EXISTS seats (workspace_id uuid NOT NULL, seat bigint NOT NULL, principal_id uuid NOT NULL,
    PRIMARY KEY (workspace_id, seat));
CREATE TABLE IF NOT EXISTS api_keys (key_id text NOT NULL PRIMARY KEY, id uuid NOT NULL, workspace_id uuid NOT NULL,
    principal_id uuid NOT NULL, principal_kind text NOT NULL CHECK (principal_kind IN ('user', 'service')),
    created_by_entity_id uuid, created_by_credential_id uuid, name text, role {_ROLE}, permissions jsonb NOT NULL,
    secret_hash bytea NOT NULL, position bigint NOT NULL, expires_at timestamptz NOT NULL, last_used_at timestamptz,
    revoked_at timestamptz, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS api_keys_by_workspace ON api_keys (workspace_id, position) WHERE position > 0;
CREATE INDEX IF NOT EXISTS api_keys_by_creator ON api_keys (workspace_id, created_by_entity_id, position);
CREATE TABLE IF NOT EXISTS test_callers (workspace_id uuid NOT NULL, ordinal bigint NOT NULL, number text NOT NULL,
    PRIMARY KEY (workspace_id, ordinal));
CREATE UNIQUE INDEX IF NOT EXISTS test_callers_by_number ON test_callers (workspace_id, number);
CREATE TABLE IF NOT EXISTS test_caller_lists (workspace_id uuid NOT NULL, version bigint NOT NULL,
    numbers jsonb NOT NULL, set_at timestamptz NOT NULL, PRIMARY KEY (workspace_id, version));
CREATE TABLE IF NOT EXISTS integrations (workspace_id uuid NOT NULL, id uuid NOT NULL, name text NOT NULL,
    display_name text NOT NULL, protocol text NOT NULL CHECK (protocol IN ('rest', 'fhir', 'mcp')),
    base_url text NOT NULL, auth jsonb, endpoints jsonb NOT NULL, mcp jsonb, enabled boolean NOT NULL,
    builtin boolean NOT NULL, position bigint NOT NULL, created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL, PRIMARY KEY (workspace_id, id));
CREATE UNIQUE INDEX IF NOT EXISTS integrations_by_name ON integrations (workspace_id, name);
CREATE UNIQUE INDEX IF NOT EXISTS integrations_by_position ON integrations (workspace_id, position);
CREATE TABLE IF NOT EXISTS audit_events (workspace_id uuid NOT NULL, at timestamptz NOT NULL, id uuid NOT NULL,
    service text NOT NULL, action text NOT NULL, resource_type text NOT NULL, resource_id uuid, resource_name text,
    actor_entity_id uuid, actor_credential_id uuid, ip_address text, user_agent text, phi_accessed boolean NOT NULL,
    metadata jsonb, PRIMARY KEY (workspace_id, at, id));
"""


def postgres() -> str:
    return _TABLES


def sqlite() -> str:
    """The tables in the dialect of SQLite: native types as text, and one tree per table."""
    text = _TABLES
    for name, spelling in (("uuid", "TEXT"), ("timestamptz", "TEXT"), ("jsonb", "TEXT"), ("boolean", "INTEGER"),
                           ("bigint", "INTEGER"), ("bytea", "BLOB")):  # fmt: skip
        text = text.replace(f" {name}", f" {spelling}")
    return ";".join(
        f"{statement} STRICT, WITHOUT ROWID" if "CREATE TABLE" in statement else statement
        for statement in text.split(";")
    )


# The seeds of provisioning, by connector: display name, protocol, base URL. Ward's other seeds are descriptions.
CONNECTORS = {
    "revolution": ("RevolutionEHR", "fhir", "https://revolutionehr.dynamicfhir.com/fhir/revolutionehr/{practice}/r4"),
    "epic": ("Epic", "fhir", "https://{host}/{instance}/api/FHIR/R4"),
    "cerner": ("Oracle Health (Cerner)", "fhir", "https://fhir-ehr.cerner.com/r4/{tenant}"),
    "allscripts": ("Veradigm (Allscripts)", "fhir", "https://{host}/fhirroute/fhir/{tenant}"),
    "fhir_store": ("Google Cloud FHIR store", "fhir", "https://healthcare.googleapis.com/v1/projects/{project}"),
    "hubspot": ("HubSpot", "rest", "https://api.hubapi.com"),
    "athenahealth": ("athenahealth", "rest", "https://api.platform.athenahealth.com/v1/{practiceid}"),
    "charmhealth": ("CharmHealth", "fhir", "https://ehr2.charmtracker.com/api/ehr/v2/fhir"),
    "eclinicalworks": ("eClinicalWorks", "fhir", "https://fhir4.eclinicalworks.com/fhir/r4/{practice_code}"),
    "meditab": ("Meditab", "fhir", ""),
}

-- oldest binary: 0.1.0
--
-- Phone calls, why some of them are only tests, and what the others owe to the EHR.

-- Every list of test callers a workspace has had since lists have versions, so that what a call was judged by can be
-- shown later. Version 0 is the list as it was before its first change.
CREATE TABLE test_caller_lists (
    workspace_id uuid NOT NULL,
    version bigint NOT NULL,
    numbers jsonb NOT NULL,
    set_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, version)
);
-- step
-- `direction`, `caller` and what decided them are written once, by the first report. `details` holds what no filter asks
-- for. `sync` says what became owed when the call finished.
CREATE TABLE calls (
    workspace_id uuid NOT NULL,
    id uuid NOT NULL,
    call_sid text NOT NULL,
    direction text NOT NULL CHECK (direction IN ('inbound', 'outbound', 'test', 'playground', 'simulated')),
    reported_direction text NOT NULL,
    reported_by text NOT NULL CHECK (reported_by IN ('runtime', 'twilio')),
    caller text,
    caller_form text NOT NULL CHECK (caller_form IN ('number', 'uri', 'other', 'withheld')),
    list_version bigint NOT NULL,
    status text NOT NULL,
    finished boolean NOT NULL,
    completion_reason text,
    duration_ms bigint,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    service_id text,
    details jsonb NOT NULL,
    sync text,
    sync_connector text,
    first_reported_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (id, workspace_id)
);
-- step
CREATE UNIQUE INDEX calls_by_sid ON calls (call_sid, workspace_id);
-- step
-- What the foreign key of deliveries leads to.
CREATE UNIQUE INDEX calls_by_direction ON calls (id, workspace_id, direction);
-- step
CREATE INDEX calls_by_start ON calls (workspace_id, started_at, id);
-- step
-- Where a workspace's calls come from at Twilio. The token is sealed under the operator's key.
CREATE TABLE twilio_accounts (
    workspace_id uuid NOT NULL PRIMARY KEY,
    account_sid text NOT NULL,
    auth_token bytea NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
-- step
-- One row per integration that deliveries were ever owed to: its turn, its lease and its breaker. Writes on an
-- integration's queue wait for each other here.
CREATE TABLE sync_lanes (
    workspace_id uuid NOT NULL,
    integration_id uuid NOT NULL,
    due_at timestamptz NOT NULL,
    not_before timestamptz NOT NULL,
    lease_token uuid,
    lease_until timestamptz NOT NULL,
    held boolean NOT NULL,
    held_because text,
    held_at timestamptz,
    waits_because text,
    failures bigint NOT NULL,
    last_success_at timestamptz,
    PRIMARY KEY (workspace_id, integration_id)
);
-- step
CREATE INDEX sync_lanes_by_due ON sync_lanes (due_at);
-- step
-- What is owed to the outside, one row per call and integration. Only calls that were real can be: the CHECK and the
-- foreign key are the second and third of the four walls between a test call and a patient's record.
CREATE TABLE deliveries (
    workspace_id uuid NOT NULL,
    id uuid NOT NULL,
    integration_id uuid NOT NULL,
    call_id uuid NOT NULL,
    direction text NOT NULL CHECK (direction IN ('inbound', 'outbound')),
    state text NOT NULL CHECK (state IN ('pending', 'sending', 'synced', 'held', 'failed')),
    reason text,
    lease_token uuid,
    attempts bigint NOT NULL,
    tried_since timestamptz,
    maybe_sent boolean NOT NULL,
    location text,
    outcome jsonb,
    position bigint NOT NULL,
    created_at timestamptz NOT NULL,
    settled_at timestamptz,
    PRIMARY KEY (id, workspace_id),
    FOREIGN KEY (call_id, workspace_id, direction) REFERENCES calls (id, workspace_id, direction)
);
-- step
CREATE UNIQUE INDEX deliveries_by_call ON deliveries (call_id, workspace_id, integration_id);
-- step
CREATE UNIQUE INDEX deliveries_by_position ON deliveries (workspace_id, position);
-- step
CREATE INDEX deliveries_by_state ON deliveries (workspace_id, integration_id, state, position);
-- step
-- Only what is still to be sent: what is settled leaves it, so that its cost never grows with history.
CREATE TABLE delivery_queue (
    workspace_id uuid NOT NULL,
    integration_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    due_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (delivery_id, workspace_id, integration_id)
);
-- step
CREATE INDEX delivery_queue_by_due ON delivery_queue (workspace_id, integration_id, due_at);
-- step
CREATE INDEX delivery_queue_by_lane ON delivery_queue (workspace_id, integration_id, delivery_id);
-- step
CREATE TABLE delivery_attempts (
    workspace_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    number bigint NOT NULL,
    outcome text NOT NULL,
    status bigint,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    detail jsonb,
    PRIMARY KEY (workspace_id, delivery_id, number)
);

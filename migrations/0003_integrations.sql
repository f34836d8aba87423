-- oldest binary: 0.1.0
--
-- Credentials of integrations, sealed under the operator's keys. `field` says where in the integration each belongs,
-- `reference` is what answers show in its place, `origins` is where it may go, `key_id` what it is sealed under.

CREATE TABLE integration_secrets (
    workspace_id uuid NOT NULL,
    integration_id uuid NOT NULL,
    field text NOT NULL,
    reference text NOT NULL,
    origins text NOT NULL,
    key_id text NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, integration_id, field)
);
-- step
CREATE INDEX integration_secrets_by_key ON integration_secrets (key_id);

-- oldest binary: 0.1.0
--
-- Trust rules: the tokens of workloads, such as CI jobs and pods, that act in a workspace. `id` is also the id of the service
-- that such a token acts as. `look_up` is a hash of the workspace, issuer, audience and one exact condition. `anchor` is the
-- same without the workspace. So one look-up finds the rules for a token among any number of them.
CREATE TABLE trust_rules (
    id uuid NOT NULL PRIMARY KEY,
    workspace_id uuid NOT NULL,
    name text NOT NULL,
    issuer text NOT NULL,
    audience text NOT NULL,
    conditions jsonb NOT NULL,
    look_up bytea NOT NULL,
    anchor bytea NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'member', 'operator', 'admin')),
    permissions jsonb NOT NULL,
    created_by_entity_id uuid NOT NULL,
    created_by_credential_id uuid,
    position bigint NOT NULL,
    expires_at timestamptz,
    created_at timestamptz NOT NULL
);
-- step
CREATE UNIQUE INDEX trust_rules_by_workspace ON trust_rules (workspace_id, position);
-- step
CREATE INDEX trust_rules_by_look_up ON trust_rules (look_up);
-- step
CREATE INDEX trust_rules_by_anchor ON trust_rules (anchor);

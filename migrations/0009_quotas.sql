-- oldest binary: 0.1.0
--
-- Quotas: how much a workspace may have, and how much it has. The counts stand in the guard row that a write holds anyway, so
-- they are exact, and no write counts rows.

-- The operator's limits of one workspace, as a JSON object from quota to number. NULL: the settings' limits hold.
ALTER TABLE workspaces ADD COLUMN limits jsonb;
-- step
ALTER TABLE workspaces ADD COLUMN used_keys bigint NOT NULL DEFAULT 0;
-- step
ALTER TABLE workspaces ADD COLUMN used_members bigint NOT NULL DEFAULT 0;
-- step
ALTER TABLE workspaces ADD COLUMN used_invitations bigint NOT NULL DEFAULT 0;
-- step
ALTER TABLE workspaces ADD COLUMN used_integrations bigint NOT NULL DEFAULT 0;
-- step
ALTER TABLE workspaces ADD COLUMN used_bytes bigint NOT NULL DEFAULT 0;
-- step
-- The calls that began on `calls_day`, a number of days since 1970 in UTC.
ALTER TABLE workspaces ADD COLUMN used_calls bigint NOT NULL DEFAULT 0;
-- step
ALTER TABLE workspaces ADD COLUMN calls_day bigint NOT NULL DEFAULT 0;
-- step
-- What an integration counts for in `used_bytes`, and so gives back when it is deleted.
ALTER TABLE integrations ADD COLUMN bytes bigint;
-- step
UPDATE integrations SET bytes =
    length(name) + length(display_name) + length(base_url) + length(CAST(endpoints AS text))
    + COALESCE(length(CAST(auth AS text)), 0) + COALESCE(length(CAST(mcp AS text)), 0)
    + (SELECT COALESCE(sum(length(s.sealed)), 0) FROM integration_secrets s
       WHERE s.workspace_id = integrations.workspace_id AND s.integration_id = integrations.id);
-- step
-- Whose `used_bytes` an answer counts for, and how much.
ALTER TABLE idempotency ADD COLUMN workspace_id uuid;
-- step
ALTER TABLE idempotency ADD COLUMN bytes bigint NOT NULL DEFAULT 0;
-- step
UPDATE workspaces SET
    used_keys = (SELECT count(*) FROM api_keys k WHERE k.workspace_id = workspaces.id AND k.position > 0),
    used_members = (SELECT count(*) FROM memberships m WHERE m.workspace_id = workspaces.id),
    used_invitations = (SELECT count(*) FROM invitations i WHERE i.workspace_id = workspaces.id AND i.position > 0),
    used_integrations = (SELECT count(*) FROM integrations n WHERE n.workspace_id = workspaces.id),
    used_bytes = length(name)
        + (SELECT COALESCE(sum(n.bytes), 0) FROM integrations n WHERE n.workspace_id = workspaces.id)
        + (SELECT COALESCE(sum(length(CAST(c.details AS text))), 0) FROM calls c WHERE c.workspace_id = workspaces.id)
        + (SELECT COALESCE(sum(length(k.name)), 0) FROM api_keys k WHERE k.workspace_id = workspaces.id AND k.position > 0)
WHERE state <> 'lapsed';
-- step
-- Whether an owner signs in with an identity provider, and so needs no key.
CREATE INDEX identities_by_principal ON identities (principal_id);
-- step
-- The sweep settles what has expired, so that it no longer counts, and forgets what is settled.
DROP INDEX invitations_by_end;
-- step
CREATE INDEX invitations_by_end ON invitations (expires_at) WHERE position > 0;
-- step
CREATE INDEX invitations_by_age ON invitations (expires_at) WHERE position < 0;

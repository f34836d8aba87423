-- oldest binary: 0.1.0
--
-- Writes whose work does not grow with what a tenant has. An end holds with its commit, because whoever reads judges by it;
-- the rows that it concerns are closed afterwards, some at a time.

-- Ends that rows still have to follow: a member's keys and invitations, and the places of an archived or restored workspace
-- in its members' lists (`principal_id` is nil there). An invitation ends if it stands before `position`. `done_until` is the
-- member up to whom lists are done.
CREATE TABLE endings (
    workspace_id uuid NOT NULL,
    principal_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('keys', 'invitations', 'owner_invitations', 'listing')),
    position bigint NOT NULL,
    done_until uuid NOT NULL,
    due_at timestamptz NOT NULL,
    actor_entity_id uuid,
    actor_credential_id uuid,
    request_id text NOT NULL,
    PRIMARY KEY (workspace_id, principal_id, kind)
);
-- step
CREATE INDEX endings_by_turn ON endings (due_at);
-- step
-- The workspace, where a user is an owner of it. The index finds the owners among a million members.
ALTER TABLE memberships ADD COLUMN owned_workspace_id uuid;
-- step
UPDATE memberships SET owned_workspace_id = workspace_id
WHERE role = 'owner' AND (SELECT p.kind FROM principals p WHERE p.id = memberships.principal_id) = 'user';
-- step
CREATE INDEX memberships_by_owned ON memberships (owned_workspace_id, principal_id) WHERE owned_workspace_id IS NOT NULL;
-- step
-- The open invitations of one maker, by role. The list of open ones is an index of its own, as with keys in 0007.
DROP INDEX invitations_by_position;
-- step
CREATE UNIQUE INDEX invitations_by_position ON invitations (workspace_id, position) WHERE position > 0;
-- step
CREATE INDEX invitations_by_maker ON invitations (created_by_entity_id, workspace_id, role, position);
-- step
-- With the place in the list, live keys are found among any number of revoked ones.
DROP INDEX api_keys_by_principal;
-- step
CREATE INDEX api_keys_by_principal ON api_keys (principal_id, workspace_id, position);

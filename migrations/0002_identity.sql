-- oldest binary: 0.1.0
--
-- People who sign in elsewhere, and how they come into workspaces.

-- What a principal is called, for people.
ALTER TABLE principals ADD COLUMN display_name text;
-- step
-- The place in the workspace's list of members, as `position` is the place in the principal's list of workspaces.
ALTER TABLE memberships ADD COLUMN seat bigint;
-- step
UPDATE memberships SET seat = (
    SELECT count(*) FROM memberships earlier
    WHERE earlier.workspace_id = memberships.workspace_id
      AND (earlier.created_at < memberships.created_at
           OR (earlier.created_at = memberships.created_at AND earlier.principal_id <= memberships.principal_id))
);
-- step
-- The list of members, in order. A table of its own: as an index of `memberships` it would compete with the primary key
-- for the look-up that every request makes, and lead that to all members of a workspace.
CREATE TABLE seats (
    workspace_id uuid NOT NULL,
    seat bigint NOT NULL,
    principal_id uuid NOT NULL,
    PRIMARY KEY (workspace_id, seat)
);
-- step
INSERT INTO seats (workspace_id, seat, principal_id) SELECT workspace_id, seat, principal_id FROM memberships;
-- step
-- Which principal a subject of an issuer is. Made with the subject's first write.
CREATE TABLE identities (
    issuer text NOT NULL,
    subject text NOT NULL,
    principal_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('user', 'service')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (issuer, subject)
);
-- step
-- Links that make their bearer a member, once. `secret_hash` is a hash of what the link holds. A `position` is negative
-- once the invitation is settled: accepted, revoked, or ended with its maker's authority.
CREATE TABLE invitations (
    workspace_id uuid NOT NULL,
    id uuid NOT NULL,
    secret_hash text NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'member', 'operator', 'admin', 'owner')),
    email text,
    created_by_entity_id uuid NOT NULL,
    position bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (id, workspace_id)
);
-- step
CREATE UNIQUE INDEX invitations_by_secret ON invitations (secret_hash);
-- step
CREATE UNIQUE INDEX invitations_by_position ON invitations (workspace_id, position);
-- step
CREATE INDEX invitations_by_end ON invitations (expires_at);
-- step
-- Who is to be owner in whose stead, until they accept or the time is over. One at a time.
CREATE TABLE ownership_transfers (
    workspace_id uuid NOT NULL PRIMARY KEY,
    nominee_entity_id uuid NOT NULL,
    nominated_by_entity_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL
);

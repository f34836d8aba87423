-- oldest binary: 0.1.0
--
-- Archived workspaces: since when, and until when their last owners can restore them. A workspace that an older binary archived has no
-- row here: its owners can restore it without a limit of time. A restoration deletes the row.

CREATE TABLE archives (
    workspace_id uuid NOT NULL PRIMARY KEY,
    archived_at timestamptz NOT NULL,
    purge_at timestamptz NOT NULL
);
-- step
CREATE INDEX archives_by_end ON archives (purge_at);
-- step
-- The workspaces of a principal that an archive took out of its list.
CREATE INDEX memberships_by_archive ON memberships (principal_id, position) WHERE position < 0;
-- step
-- Reasons for which nothing of a workspace may be deleted.
CREATE TABLE legal_holds (
    workspace_id uuid NOT NULL,
    reason text NOT NULL,
    placed_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id)
);

-- oldest binary: 0.1.0
--
-- Former slugs of renamed workspaces. Until `free_at` they belong to their workspace: they stand in `slugs` too, and a look-up
-- by one finds it. An older binary treats them as taken. `last_used_at` has the resolution of minutes.

CREATE TABLE former_slugs (
    workspace_id uuid NOT NULL,
    slug text NOT NULL,
    retired_at timestamptz NOT NULL,
    free_at timestamptz NOT NULL,
    last_used_at timestamptz,
    PRIMARY KEY (workspace_id, slug)
);
-- step
CREATE UNIQUE INDEX former_slugs_by_slug ON former_slugs (slug);
-- step
CREATE INDEX former_slugs_by_end ON former_slugs (free_at);

-- oldest binary: 0.1.0
--
-- Keys of a workspace whose calls and text turns are tests, in the order in which they were set. A row goes with its key.

CREATE TABLE test_credentials (
    workspace_id uuid NOT NULL,
    credential_id uuid NOT NULL,
    ordinal bigint NOT NULL,
    PRIMARY KEY (workspace_id, credential_id)
);
-- step
-- Keys by their own id, which is what a list of test credentials names.
CREATE UNIQUE INDEX api_keys_by_id ON api_keys (id);
-- step
-- What the last test of an integration's connection found. NULL: not tested since its last change.
ALTER TABLE integrations ADD COLUMN last_tested_at timestamptz;
-- step
ALTER TABLE integrations ADD COLUMN last_test_status text;

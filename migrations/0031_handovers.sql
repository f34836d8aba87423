-- oldest binary: 0.1.0
--
-- New secrets of keys that wait for their receivers, one for each key. `sealed` is under the operator's key. A row goes with its
-- first reading, or after `expires_at`.

CREATE TABLE handovers (
    key_id text NOT NULL,
    workspace_id uuid NOT NULL,
    token_hash bytea NOT NULL,
    sealed bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (key_id)
);
-- step
CREATE UNIQUE INDEX handovers_by_token ON handovers (token_hash);
-- step
CREATE INDEX handovers_by_end ON handovers (expires_at);

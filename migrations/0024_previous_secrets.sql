-- oldest binary: 0.1.0
--
-- The secret that a rotation with an overlap replaced. It is valid until `previous_ends_at`, which is never after the key's
-- expiry. `previous_used_at` is its last use, at the beginning of the minute.

ALTER TABLE api_keys ADD COLUMN previous_hash bytea;
-- step
ALTER TABLE api_keys ADD COLUMN previous_ends_at timestamptz;
-- step
ALTER TABLE api_keys ADD COLUMN previous_used_at timestamptz;
-- step
-- The keys of a workspace by role: those of owners are ways into it.
CREATE INDEX api_keys_by_role ON api_keys (workspace_id, role, expires_at) WHERE position > 0;

-- oldest binary: 0.1.0
--
-- From where a key and a workspace may be used, and whose users may be members. NULL restricts nothing. The columns stand in the
-- rows that the look-up of every request reads anyway.

-- A JSON list of IP ranges.
ALTER TABLE api_keys ADD COLUMN networks jsonb;
-- step
ALTER TABLE workspaces ADD COLUMN networks jsonb;
-- step
-- A JSON list of identity issuers.
ALTER TABLE workspaces ADD COLUMN issuers jsonb;

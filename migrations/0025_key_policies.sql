-- oldest binary: 0.1.0
--
-- The ceilings that the owners of a workspace chose: an object from the name of a role to the longest life of its keys in days.

CREATE TABLE key_policies (
    workspace_id uuid NOT NULL,
    ceilings jsonb NOT NULL,
    PRIMARY KEY (workspace_id)
);
-- step
-- How many of the warnings 14, 7 and 1 days before the expiry have passed. A rotation counts them again, and a revoked key has -1.
ALTER TABLE api_keys ADD COLUMN warnings bigint NOT NULL DEFAULT 0;
-- step
-- The keys whose next warning is due. With the condition `position > 0`, PostgreSQL would read all of this index for lists.
CREATE INDEX api_keys_by_warning ON api_keys (warnings, expires_at);

-- oldest binary: 0.1.0
--
-- Keys whose secrets were found in public places. A key in quarantine only reads, until its expiry, which the quarantine brings
-- nearer. A rotation ends the quarantine together with the secret. A workspace without a row revokes such keys.

ALTER TABLE api_keys ADD COLUMN quarantined_at timestamptz;
-- step
CREATE TABLE leaked_key_policies (
    workspace_id uuid NOT NULL PRIMARY KEY,
    action text NOT NULL CHECK (action IN ('revoke', 'quarantine')),
    updated_at timestamptz NOT NULL
);

-- oldest binary: 0.1.0
--
-- The nightly comparison of a workspace's calls with Twilio's own list.

-- `report`, `enter` or `off`; NULL is `report`. A replica of an earlier version sets it to NULL when it stores an account.
ALTER TABLE twilio_accounts ADD COLUMN reconciliation text;
-- step
-- One row per account, which is also its place in the queue: a worker leases it, and moves `due_at` with every page. `run` is
-- the progress of the comparison under way, so that any replica continues it; `last` is the result of the last complete one.
-- `calls_missing` is NULL if that found nothing that is still missing, and `failing_since` is NULL after a success, so that their
-- indexes stay small.
CREATE TABLE twilio_reconciliations (
    workspace_id uuid NOT NULL PRIMARY KEY,
    due_at timestamptz NOT NULL,
    lease uuid,
    attempts bigint NOT NULL,
    account_sid text,
    reconciled_until timestamptz,
    run jsonb,
    last jsonb,
    calls_missing bigint,
    failing_since timestamptz,
    failure text
);
-- step
CREATE INDEX twilio_reconciliations_by_due ON twilio_reconciliations (due_at);
-- step
CREATE INDEX twilio_reconciliations_missing ON twilio_reconciliations (calls_missing) WHERE calls_missing IS NOT NULL;
-- step
CREATE INDEX twilio_reconciliations_failing ON twilio_reconciliations (failing_since) WHERE failing_since IS NOT NULL;

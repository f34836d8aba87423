-- oldest binary: 0.1.0
--
-- A person's corrections of a call before its EHR receives it. The former and the new values are sealed under the operator's key.

CREATE TABLE call_corrections (
    workspace_id uuid NOT NULL,
    call_id uuid NOT NULL,
    number bigint NOT NULL,
    corrected_at timestamptz NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (call_id, number, workspace_id)
);

-- oldest binary: 0.1.0
--
-- The facts by which an EHR finds the patient of a call. They are sealed under the operator's key. A replica of an earlier
-- version neither reads nor writes them.

CREATE TABLE call_patients (
    workspace_id uuid NOT NULL,
    call_id uuid NOT NULL,
    sealed bytea NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (call_id, workspace_id)
);

-- oldest binary: 0.1.0
--
-- Exports of audit events. A workspace has one at most under way: its row in the queue, which workers lease.

CREATE TABLE audit_exports (
    workspace_id uuid NOT NULL,
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    created_by uuid,
    date_from timestamptz NOT NULL,
    date_to timestamptz NOT NULL,
    service text,
    action text,
    phi_only boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('queued', 'done', 'failed')),
    rows_found bigint NOT NULL,
    bytes bigint NOT NULL,
    finished_at timestamptz,
    PRIMARY KEY (workspace_id, id)
);
-- step
CREATE TABLE audit_export_queue (
    workspace_id uuid NOT NULL PRIMARY KEY,
    export_id uuid NOT NULL,
    due_at timestamptz NOT NULL,
    attempts bigint NOT NULL,
    lease uuid
);
-- step
CREATE INDEX audit_export_queue_by_time ON audit_export_queue (due_at);

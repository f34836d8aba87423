-- oldest binary: 0.1.0
--
-- Numbers that Twilio dialled on behalf of a call that it has not reported yet: the child legs of a softphone's call come
-- first. A row goes with the first report of its call, or after a day.

CREATE TABLE call_legs (
    workspace_id uuid NOT NULL,
    parent_sid text NOT NULL,
    callee text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, parent_sid)
);
-- step
CREATE INDEX call_legs_by_time ON call_legs (workspace_id, created_at, parent_sid);

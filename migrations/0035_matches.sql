-- oldest binary: 0.1.0
--
-- The patient and the encounter that an EHR's answer named for a delivery, and the open question about one of them.

-- `matched` is what was found, sealed under the operator's key. The other columns are NULL unless a person has to decide:
-- `needs` is `patient` or `encounter`, and `offered` has the candidates, sealed. A replica of an earlier version releases a
-- held delivery without these rows, so queries look at the state of the delivery too.
CREATE TABLE delivery_matches (
    workspace_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    matched bytea,
    review_id uuid,
    needs text,
    because text,
    candidates bigint,
    offered bytea,
    position bigint,
    opened_at timestamptz,
    PRIMARY KEY (delivery_id, workspace_id)
);
-- step
CREATE UNIQUE INDEX delivery_reviews_by_position ON delivery_matches (workspace_id, position) WHERE position IS NOT NULL;
-- step
CREATE INDEX delivery_reviews_by_age ON delivery_matches (opened_at) WHERE opened_at IS NOT NULL;
-- step
-- The deliveries that wait for a patient or an encounter already. The position of a delivery is unique in its workspace.
INSERT INTO delivery_matches (workspace_id, delivery_id, review_id, needs, because, candidates, position, opened_at)
SELECT workspace_id, id, id, CASE WHEN reason = 'unmatched_patient' THEN 'patient' ELSE 'encounter' END, 'not_reported', 0,
       position, COALESCE(settled_at, created_at)
FROM deliveries WHERE state = 'held' AND reason IN ('unmatched_patient', 'unmatched_encounter');

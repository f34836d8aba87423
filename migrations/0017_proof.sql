-- oldest binary: 0.1.0
--
-- The answers that attempts keep, the search that follows an unknown outcome, and queues that heal themselves.

ALTER TABLE delivery_attempts ADD COLUMN content_type text;
-- step
-- The beginning of the answer, sealed under the operator's key. It may name a patient.
ALTER TABLE delivery_attempts ADD COLUMN answer bytea;
-- step
-- Creates of this delivery whose outcome was unknown.
ALTER TABLE deliveries ADD COLUMN unknowns bigint;
-- step
-- Null: the delivery is to be sent. `check`: it arrived after an unknown outcome, and a search for duplicates follows.
ALTER TABLE delivery_queue ADD COLUMN purpose text;
-- step
-- Tries of a queue that Ward itself holds.
ALTER TABLE sync_lanes ADD COLUMN probes bigint;
-- step
-- The last equal refusals in a row: their status and their deliveries, five and those under way beside them at most.
ALTER TABLE sync_lanes ADD COLUMN refusals jsonb;
-- step
ALTER TABLE sync_lanes ADD COLUMN waits_since timestamptz;
-- step
CREATE INDEX sync_lanes_by_wait ON sync_lanes (waits_because, waits_since) WHERE waits_because IS NOT NULL;
-- step
-- The time since which a delivery waits for a person: it is held, or has failed. Null otherwise, so that the index has only
-- these. A replica of an earlier version does not write it: queries look at the state too.
ALTER TABLE deliveries ADD COLUMN stuck_since timestamptz;
-- step
UPDATE deliveries SET stuck_since = settled_at
WHERE state IN ('held', 'failed') AND (reason IS NULL OR reason <> 'dropped');
-- step
CREATE INDEX deliveries_stuck ON deliveries (stuck_since, id) WHERE stuck_since IS NOT NULL;
-- step
-- The first report of a call that has no end yet. Null otherwise.
ALTER TABLE calls ADD COLUMN unfinished_since timestamptz;
-- step
UPDATE calls SET unfinished_since = first_reported_at WHERE finished = false;
-- step
CREATE INDEX calls_unfinished ON calls (unfinished_since, id) WHERE unfinished_since IS NOT NULL;

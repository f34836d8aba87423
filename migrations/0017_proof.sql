-- oldest binary: 0.1.0
--
-- What an attempt keeps of an EHR's answer, the search that follows an unknown outcome, and queues that heal themselves.

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
CREATE INDEX deliveries_by_trouble ON deliveries (state, reason, settled_at);
-- step
CREATE INDEX calls_unfinished ON calls (finished, updated_at);

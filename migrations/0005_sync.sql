-- oldest binary: 0.1.0
--
-- What the queue needs to be fair: time in which nothing could be tried does not count, and its age is exact.

-- When a lane that waited for somebody could go again: what was tried before it is not tried any longer for that.
ALTER TABLE sync_lanes ADD COLUMN resumed_at timestamptz;
-- step
-- Whether anybody said when the call began; otherwise `started_at` is worked out from what else is known.
ALTER TABLE calls ADD COLUMN started_told boolean;
-- step
CREATE INDEX delivery_queue_by_age ON delivery_queue (created_at);

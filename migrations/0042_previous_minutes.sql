-- oldest binary: 0.1.0
--
-- The minutes in which the replaced secret of a key was used, so that each has one event although replicas write them in any
-- order. A replica of an earlier version does not note them, so a minute can get a second event while both run.

-- The last of these minutes, in minutes since 1970. NULL: none yet.
ALTER TABLE api_keys ADD COLUMN previous_minute bigint;
-- step
-- The minutes before it that have an event: bit n stands for n minutes earlier.
ALTER TABLE api_keys ADD COLUMN previous_minutes bigint;

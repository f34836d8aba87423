-- oldest binary: 0.1.0
--
-- Amendments of deliveries that the EHR has. A replica of an earlier version finds the former record by its search, and
-- settles the delivery without the amendment; a person then amends it again.

-- The number of the amendment that is to be written. NULL: none is.
ALTER TABLE deliveries ADD COLUMN amendment bigint;
-- step
-- The number of the last amendment that the EHR has. NULL: none.
ALTER TABLE deliveries ADD COLUMN amended bigint;
-- step
-- The location of the record that the amendment changes or replaces.
ALTER TABLE deliveries ADD COLUMN amends text;

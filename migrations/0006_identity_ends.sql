-- oldest binary: 0.1.0
--
-- With which key an invitation or a nomination was made, and since when that key had the secret it had then: both end when
-- the key is revoked or rotated. NULL: made with a token, or before this was kept.

ALTER TABLE invitations ADD COLUMN created_with_key_id text;
-- step
ALTER TABLE invitations ADD COLUMN created_with_key_since timestamptz;
-- step
ALTER TABLE ownership_transfers ADD COLUMN created_with_key_id text;
-- step
ALTER TABLE ownership_transfers ADD COLUMN created_with_key_since timestamptz;

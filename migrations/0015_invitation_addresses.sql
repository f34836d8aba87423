-- oldest binary: 0.1.0
--
-- People list the invitations that are for their address. `email_key` is the address with ASCII letters in lower case.

ALTER TABLE invitations ADD COLUMN email_key text;
-- step
UPDATE invitations SET email_key = lower(email COLLATE "C") WHERE email IS NOT NULL;
-- step
CREATE INDEX invitations_by_email ON invitations (email_key, position, id) WHERE position > 0;

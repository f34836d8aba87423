-- oldest binary: 0.1.0
--
-- Unclaimed workspaces have a share per client address, and a Twilio account a second auth token while it rotates.

-- The address that created an unclaimed workspace (IPv6: its /64), where addresses have a bound.
ALTER TABLE unclaimed ADD COLUMN address text;
-- step
-- How many workspaces of each address are unclaimed. An address that has none has no row.
CREATE TABLE unclaimed_by_address (
    address text NOT NULL PRIMARY KEY,
    used bigint NOT NULL CHECK (used >= 0)
);
-- step
-- A second auth token, sealed, that signs as well.
ALTER TABLE twilio_accounts ADD COLUMN secondary_auth_token bytea;

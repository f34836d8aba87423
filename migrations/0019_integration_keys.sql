-- oldest binary: 0.1.0
--
-- Key pairs that Ward generated for an integration. The private half is a secret like the others, in the field `keys/<kid>`;
-- these columns are NULL on every other secret. `key_state` is `next`, `active` or `former`.

ALTER TABLE integration_secrets ADD COLUMN algorithm text;
-- step
ALTER TABLE integration_secrets ADD COLUMN key_state text;
-- step
ALTER TABLE integration_secrets ADD COLUMN public_key jsonb;
-- step
ALTER TABLE integration_secrets ADD COLUMN activated_at timestamptz;
-- step
-- How deliveries are written to this integration's EHR. NULL: as the connector usually does.
ALTER TABLE integrations ADD COLUMN delivery jsonb;

-- oldest binary: 0.1.0
--
-- Keys that are bound to a public key, and the proofs of possession that were used.

-- The thumbprint of the public key (RFC 7638). NULL: the secret alone is enough.
ALTER TABLE api_keys ADD COLUMN bound_jkt text;
-- step
-- Each DPoP proof that was accepted, by a hash of its key and its `jti`, for as long as its age would let it be accepted again.
CREATE TABLE dpop_proofs (
    id bytea NOT NULL PRIMARY KEY,
    kept_until timestamptz NOT NULL
);
-- step
CREATE INDEX dpop_proofs_by_end ON dpop_proofs (kept_until);

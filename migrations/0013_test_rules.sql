-- oldest binary: 0.1.0
--
-- Why a call is a test: by its caller, by its callee, or by the credential that it was made with. NULL on a test from
-- before this was kept: by its caller. Written once, with the direction.

ALTER TABLE calls ADD COLUMN test_rule text;

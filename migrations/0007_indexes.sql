-- oldest binary: 0.1.0
--
-- Two indexes of what is listed, and of nothing else. What is looked up by both parts of a primary key could also be looked
-- for in one of these, among all that somebody or some workspace has, and planners take that for as good a way wherever
-- most have one. A statement that does not say `position > 0` cannot be planned so any more.

DROP INDEX memberships_by_principal;
-- step
CREATE UNIQUE INDEX memberships_by_principal ON memberships (principal_id, position) WHERE position > 0;
-- step
DROP INDEX api_keys_by_workspace;
-- step
CREATE UNIQUE INDEX api_keys_by_workspace ON api_keys (workspace_id, position) WHERE position > 0;
-- step
-- With the direction, calls are counted in the index alone: the total of a list looks at thousands, and leaves tests out.
DROP INDEX calls_by_start;
-- step
CREATE INDEX calls_by_start ON calls (workspace_id, started_at, id, direction);

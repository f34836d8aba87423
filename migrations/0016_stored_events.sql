-- oldest binary: 0.1.0
--
-- Audit events and the files of exports count as stored. An event counts for its texts and 512 bytes.

UPDATE workspaces SET used_bytes = used_bytes
    + (SELECT COALESCE(sum(512 + COALESCE(length(e.resource_name), 0) + COALESCE(length(e.user_agent), 0)
           + COALESCE(length(CAST(e.metadata AS text)), 0)), 0)
       FROM audit_events e WHERE e.workspace_id = workspaces.id)
    + (SELECT COALESCE(sum(x.bytes), 0) FROM audit_exports x WHERE x.workspace_id = workspaces.id)
WHERE state <> 'lapsed';

//! The SQL of slugs that workspaces had before.

use ward_db::{Error, Timestamp, Tx, columns, decode, insert_later, select};

use super::FormerSlug;
use crate::guard::WorkspaceGuard;
use crate::ids::WorkspaceId;

columns! {
    FormerSlug as "f" {
        slug,
        retired_at,
        free_at,
        last_used_at,
    }
}

/// The workspace that a slug names, in any state. A former slug names its workspace until the end of its quarantine.
pub fn named(tx: &mut Tx<'_>, slug: &str, now: Timestamp) -> Result<Option<WorkspaceId>, Error> {
    tx.optional(
        // With a CASE, here and below, no planner takes the index by time: the one row is found by its slug.
        "SELECT s.workspace_id FROM slugs s WHERE s.slug = $1 AND \
         (SELECT 1 FROM former_slugs f WHERE f.slug = $1 AND CASE WHEN f.free_at <= $2 THEN 1 ELSE 0 END = 1) IS NULL",
        &[slug.into(), now.into()],
        decode,
    )
}

/// The former slugs of a workspace that are in quarantine, the newest first.
pub fn of(tx: &mut Tx<'_>, workspace: WorkspaceId, now: Timestamp) -> Result<Vec<FormerSlug>, Error> {
    let mut found: Vec<FormerSlug> = tx.all(
        select!(
            FormerSlug,
            "FROM former_slugs f WHERE f.workspace_id = $1 AND CASE WHEN f.free_at > $2 THEN 1 ELSE 0 END = 1"
        ),
        &[workspace.into(), now.into()],
        decode,
    )?;
    found.sort_by(|one, other| (other.retired_at, &one.slug).cmp(&(one.retired_at, &other.slug)));
    Ok(found)
}

/// Makes the slug that the held workspace had until now a former one.
pub fn retire(
    tx: &mut WorkspaceGuard<'_, '_>,
    slug: &str,
    now: Timestamp,
    free_at: Timestamp,
) -> Result<(), Error> {
    let workspace = tx.row();
    insert_later!(tx, "former_slugs" {
        workspace_id: workspace,
        slug: slug,
        retired_at: now,
        free_at: free_at,
    })
}

/// Takes a former slug of the held workspace back; `false` if it is none.
pub fn take_back(tx: &mut WorkspaceGuard<'_, '_>, slug: &str) -> Result<bool, Error> {
    let workspace = tx.row();
    let taken = tx.execute(
        "DELETE FROM former_slugs WHERE workspace_id = $1 AND slug = $2",
        &[workspace.into(), slug.into()],
    )?;
    Ok(taken == 1)
}

/// Frees a former slug whose quarantine is over; `false` if there is none. Only the transaction that deleted its row frees it.
pub fn free(tx: &mut Tx<'_>, slug: &str, now: Timestamp) -> Result<bool, Error> {
    let former: Option<WorkspaceId> = tx.optional(
        "DELETE FROM former_slugs WHERE slug = $1 AND CASE WHEN free_at <= $2 THEN 1 ELSE 0 END = 1 RETURNING workspace_id",
        &[slug.into(), now.into()],
        decode,
    )?;
    let Some(workspace) = former else { return Ok(false) };
    tx.execute("DELETE FROM slugs WHERE slug = $1 AND workspace_id = $2", &[slug.into(), workspace.into()])?;
    Ok(true)
}

/// Frees up to `most` former slugs whose quarantine is over. Returns how many were due.
pub fn forget_due(tx: &mut Tx<'_>, now: Timestamp, most: u32) -> Result<usize, Error> {
    let due: Vec<String> = tx.all(
        "SELECT slug FROM former_slugs WHERE free_at <= $1 ORDER BY free_at LIMIT $2",
        &[now.into(), most.into()],
        decode,
    )?;
    for slug in &due {
        free(tx, slug, now)?;
    }
    Ok(due.len())
}

/// Stores the last look-up by a former slug, which only moves forward.
pub fn store_last_used(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    slug: &str,
    at: Timestamp,
) -> Result<(), Error> {
    tx.execute_later(
        "UPDATE former_slugs SET last_used_at = $3 WHERE workspace_id = $1 AND slug = $2 \
         AND CASE WHEN last_used_at IS NULL OR last_used_at < $3 THEN 1 ELSE 0 END = 1",
        &[workspace.into(), slug.into(), at.into()],
    )
}

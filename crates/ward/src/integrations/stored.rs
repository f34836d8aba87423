//! Stored configurations that are longer than the limits of today.

use ward_contract::Operation;
use ward_contract::validate::{self, Loc, ParsedBody, Problem};
use ward_db::{Error, Tx};

use super::store;
use crate::ids::{IntegrationId, WorkspaceId};

/// The kinds of problems that are about a length or a count.
const LENGTHS: [&str; 4] = ["string_too_long", "too_long", "json_too_large", "json_too_deep"];

/// The fields of one integration that are longer than their limits of today.
pub struct OverLongFields {
    pub workspace: WorkspaceId,
    pub id: IntegrationId,
    /// Each field, such as `endpoints.3.description`, and its limit as a sentence.
    pub fields: Vec<(String, String)>,
}

/// Checks up to `most` integrations, after this row, against the operation that creates one, because it
/// knows every limit.
pub fn over_long(
    tx: &mut Tx<'_>,
    create: &Operation,
    after: (WorkspaceId, IntegrationId),
    most: u32,
) -> Result<Vec<OverLongFields>, Error> {
    let found = store::configurations_after(tx, after, most)?;
    let judged = found.into_iter().map(|stored| {
        let problems = validate::body(create, &ParsedBody::Json(stored.fields.into())).err();
        let problems: Vec<Problem> = problems.map(Vec::from).unwrap_or_default();
        let fields = problems
            .into_iter()
            .filter(|problem| LENGTHS.contains(&problem.kind))
            .map(|problem| (field(&problem.loc), problem.msg))
            .collect();
        OverLongFields { workspace: stored.workspace, id: stored.id, fields }
    });
    Ok(judged.collect())
}

/// Writes a location as a dotted path, such as `endpoints.3.description`.
fn field(loc: &[Loc]) -> String {
    let steps = loc.iter().skip(1).map(|step| match step {
        Loc::Key(key) => key.to_string(),
        Loc::Index(index) => index.to_string(),
    });
    steps.collect::<Vec<_>>().join(".")
}

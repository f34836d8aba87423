//! The JSON routes of trust rules.

use http::StatusCode;
use uuid::Uuid;

use super::actions::{self, CreateTrustRuleRequest};
use super::wire::TrustRuleResponse;
use super::{TrustRule, store};
use crate::error::ApiError;
use crate::gate::Entry;
use crate::gate::idempotency::Repeat;
use crate::http::{Query, Reply, Request, Sent};
use crate::ids::PrincipalId;
use crate::page::{PageQuery, Paginated, TOTAL_LIMIT};

pub async fn list(request: Request, (entry, query): (Entry, Query)) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let page = query.read::<PageQuery>()?.page();
    let listed = request.app.db.read("trust_rules.list", move |tx| {
        let rows = store::list(tx, workspace, page)?;
        let counted = store::count(tx, workspace, TOTAL_LIMIT + 1)?;
        let position = |rule: &TrustRule| rule.position;
        Ok::<_, ward_db::Error>(Paginated::new(rows, page, counted, position, TrustRuleResponse::from))
    });
    Reply::ok(&listed.await?)
}

pub async fn create(
    request: Request,
    (entry, sent): (Entry, Sent<CreateTrustRuleRequest>),
) -> Result<Reply, ApiError> {
    let repeat = Repeat::of(&request, Some(entry.caller.principal), &sent.bytes, StatusCode::CREATED)?;
    actions::create(&request.app, entry, sent.value, repeat).await
}

pub async fn get(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let (workspace, id) = (entry.workspace()?.id, rule_id(&request));
    let found = request.app.db.read("trust_rules.get", move |tx| store::get(tx, workspace, id)).await?;
    Reply::ok(&TrustRuleResponse::from(found.ok_or(actions::no_rule())?))
}

pub async fn delete(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    actions::delete(&request.app, entry, rule_id(&request)).await?;
    Ok(Reply::no_content())
}

/// The rule in the path. A text that is not an id is treated like an unknown id.
fn rule_id(request: &Request) -> PrincipalId {
    PrincipalId(Uuid::try_parse(request.parameter("rule_id")).unwrap_or(Uuid::nil()))
}

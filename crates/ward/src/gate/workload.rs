//! The gate for workloads: from the token of a CI job or pod to the service of a trust rule.
//!
//! A token of an issuer whose keys are known is verified before any query. Otherwise one query decides whether a rule trusts
//! what the token claims, and only then are keys fetched. So a stranger cannot make Ward call an address.

use std::net::IpAddr;
use std::sync::Arc;

use ward_db::{Timestamp, Tx};

use super::limits::Mark;
use super::{BearerRefusal, PresentedBearer, Proof, Recognized, note_unauthorized};
use crate::access::{Permissions, Reach, Role};
use crate::error::ApiError;
use crate::http::Request;
use crate::identity::token::principal_of;
use crate::identity::{Caller, Credential, Offer, PrincipalKind, RuleUsed, Workload, WorkloadToken};
use crate::ids::WorkspaceId;
use crate::shares::Share;
use crate::trust_rules::issuers::NoKeys;
use crate::trust_rules::token::Unverified;
use crate::trust_rules::{self, TrustRule};
use crate::workspaces::{AsMember, Workspace};

type Found = (TrustRule, Option<AsMember>);

/// Verifies the token of a workload. An invalid one gets 401; a token gets 503 if a rule trusts its issuer, but the issuer's
/// keys are not available.
///
/// The share of a failing client covers the look-ups and not the fetch, because an issuer can take seconds.
pub(super) async fn prove(
    request: &Request,
    text: &str,
    mark: Mark,
    share: Option<Share>,
) -> Result<PresentedBearer, ApiError> {
    let refused = |reason: &str| {
        tracing::debug!(request_id = request.context.request_id, reason, "not a credential");
        ApiError::unauthorized()
    };
    let (now, address) = (request.context.now, request.context.address);
    let read = Unverified::read(text, now).map_err(refused)?;
    let issuers = &request.app.workload_issuers;
    let known = issuers.known(&read.token.issuer);
    if known.as_ref().is_some_and(|known| read.signed_by(&known.keys)) {
        return Ok(PresentedBearer { proof: Proof::Workload(read.token), mark, share, dpop: None });
    }
    let (token, target) = (read.token.clone(), request.workspace());
    let trusting = move |tx: &mut Tx<'_>| trusting(tx, &token, target, (now, address));
    let trusting = request.app.db.read("gate.trusting", trusting).await?;
    let workspace = trusting.ok_or_else(|| refused("no rule trusts it"))?;
    drop(share);
    let place = request.app.wire.documents(&workspace, now);
    match issuers.fetch(place, workspace.id, &read.token.issuer, known.as_deref()).await {
        Ok(keys) if read.signed_by(&keys.keys) => {
            let share = request.look_up_share_of(&mark).await?;
            Ok(PresentedBearer { proof: Proof::Workload(read.token), mark, share, dpop: None })
        }
        Ok(_) => Err(refused("signature")),
        Err(NoKeys::NoPlace(used_up)) => Err(used_up),
        // The known keys are those of the last minute, so the token's key is not one of the issuer's.
        Err(NoKeys::Unavailable(_)) if known.is_some() => Err(refused("signature")),
        Err(NoKeys::Unavailable(unavailable)) => {
            note_unauthorized(request, workspace.id, (None, None), "issuer_unavailable");
            Err(ApiError::no_identity(unavailable.retry_after))
        }
    }
}

/// A workspace with a rule that trusts this token, if its signature is genuine.
fn trusting(
    tx: &mut Tx<'_>,
    token: &WorkloadToken,
    target: Option<WorkspaceId>,
    (now, address): (Timestamp, IpAddr),
) -> Result<Option<Workspace>, ward_db::Error> {
    let found = trust_rules::look_up(tx, token, target)?;
    let trusting = found.into_iter().filter(|(rule, _)| rule.trusts(token, now).is_ok());
    let mut members = trusting.filter_map(|(_, member)| member);
    let admitted = members.find(|member| member.admit(PrincipalKind::Service, address).is_ok());
    Ok(admitted.map(|member| member.workspace))
}

/// The service of the rule that trusts a verified token, in one statement.
pub(super) fn recognize(
    tx: &mut Tx<'_>,
    token: &Arc<WorkloadToken>,
    target: Option<WorkspaceId>,
    (now, address): (Timestamp, IpAddr),
) -> Result<Result<Recognized, BearerRefusal>, ward_db::Error> {
    let found = trust_rules::look_up(tx, token, target)?;
    let Some(workspace) = target else { return Ok(without_a_workspace(found, token, (now, address))) };
    let (rule, member) = match trust_rules::chosen(found, |(rule, _)| rule, token, now) {
        Ok((rule, Some(member))) => (rule, member),
        // The workspace is archived, which ends everything that opens it.
        Ok((_, None)) | Err(None) => return Ok(Err(BearerRefusal::Unknown)),
        Err(Some(reason)) => return Ok(Err(BearerRefusal::Untrusted { workspace, reason })),
    };
    // The workspace's own credentials get the 401 of a wrong key from a network that it does not allow.
    if let Err(reason) = member.admit(PrincipalKind::Service, address) {
        return Ok(Err(BearerRefusal::Untrusted { workspace, reason }));
    }
    let used = RuleUsed { id: rule.id, workspace, name: rule.name };
    let workload = Workload { token: token.clone(), rule: Some(used), offers: Vec::new() };
    let caller = Caller {
        credential: Credential::Workload(Arc::new(workload)),
        principal: rule.id,
        kind: PrincipalKind::Service,
        reach: rule.reach,
        exists: true,
    };
    Ok(Ok(Recognized::new(caller, Some(member), address)))
}

/// The caller of a request without a workspace in its path.
///
/// Every workspace can have a rule for the same token, and no workspace may decide for another. So the caller has no membership
/// and no permission. It is only shown what its token could enter.
fn without_a_workspace(
    found: Vec<Found>,
    token: &Arc<WorkloadToken>,
    (now, address): (Timestamp, IpAddr),
) -> Result<Recognized, BearerRefusal> {
    let mut by_workspace: Vec<Vec<Found>> = Vec::new();
    for one in found {
        match by_workspace.iter_mut().find(|all| all[0].0.workspace == one.0.workspace) {
            Some(all) => all.push(one),
            None => by_workspace.push(vec![one]),
        }
    }
    let chosen = by_workspace.into_iter().filter_map(|rules| {
        let (rule, member) = trust_rules::chosen(rules, |(rule, _)| rule, token, now).ok()?;
        Some((rule, member?)).filter(|(_, member)| member.admit(PrincipalKind::Service, address).is_ok())
    });
    let mut chosen: Vec<(TrustRule, AsMember)> = chosen.collect();
    if chosen.is_empty() {
        return Err(BearerRefusal::Unknown);
    }
    chosen.sort_by_key(|(rule, _)| (rule.created_at, rule.id));
    let offers = chosen.into_iter().zip(1..).map(|((rule, AsMember { workspace, role, .. }), position)| {
        let Workspace { id, slug, name, .. } = workspace;
        Offer { workspace: id, slug, name, role, reach: rule.reach, position }
    });
    let workload = Workload { token: token.clone(), rule: None, offers: offers.collect() };
    let caller = Caller {
        credential: Credential::Workload(Arc::new(workload)),
        principal: principal_of(&token.issuer, &token.subject),
        kind: PrincipalKind::Service,
        reach: Reach { role: Role::Viewer, permissions: Permissions::default() },
        exists: false,
    };
    Ok(Recognized { caller, seen: None, kept_out: None })
}

/// Fetches the issuer's keys again beside the request of an accepted workload, if they are old.
pub(super) fn refresh(request: &Request, token: &WorkloadToken, workspace: &Workspace) {
    if !request.app.workload_issuers.is_old(&token.issuer) {
        return;
    }
    let (app, issuer, workspace) = (request.app.clone(), token.issuer.clone(), workspace.clone());
    let now = request.context.now;
    tokio::spawn(async move {
        let known = app.workload_issuers.known(&issuer);
        let place = app.wire.documents(&workspace, now);
        let _ = app.workload_issuers.fetch(place, workspace.id, &issuer, known.as_deref()).await;
    });
}

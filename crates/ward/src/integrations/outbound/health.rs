//! The health check of a workspace's enabled integrations, and the test of one connection.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Duration, Instant};
use ward_db::{Timestamp, Tx};
use ward_ehr::Outbound;
use ward_ehr::delivery::Form;
use ward_ehr::health::{Checked, Health, Probe, Search, Target};

use super::client::CHECK_TIME;
use super::credentials::{Keys, own_auth};
use super::{StoredConnection, headers, milliseconds, stored_connection};
use crate::app::App;
use crate::audit::Write;
use crate::deliveries;
use crate::error::ApiError;
use crate::gate::idempotency::{Begun, Repeat};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::ids::{IntegrationId, WorkspaceId};
use crate::integrations::{AuthConfig, Endpoint, Integration, Protocol, actions, own_base_url, store};
use crate::shares::Share;

/// Integrations that one health check calls at the same time.
const CHECKED_AT_ONCE: usize = 25;

#[derive(Serialize)]
struct Report {
    id: IntegrationId,
    name: String,
    status: &'static str,
    detail: Option<String>,
    duration_ms: f64,
    #[serde(skip)]
    http_status: Option<u16>,
}

/// The answer of the health check.
#[derive(Serialize)]
pub struct Reports {
    checked_at: Timestamp,
    integrations: Vec<Report>,
}

/// Checks every enabled integration, some at the same time, each in bounded time. Tool servers are never
/// called and not listed.
///
/// The share of the first call is taken before anything is read, and the first refused share ends all checks. So a
/// workspace that has used up its calls costs no reads.
pub async fn check_all(app: &Arc<App>, entry: &Entry) -> Result<Reports, ApiError> {
    let workspace = entry.workspace()?.id;
    let mut first = Some(app.wire.place(entry.workspace()?, entry.context.now).await?);
    let heads = app.read_long(workspace, "integrations.heads", move |tx| store::heads(tx, workspace)).await?;
    let enabled = |head: &store::Head| head.enabled && head.protocol != Protocol::Mcp.name();
    let ids: Vec<IntegrationId> = heads.iter().filter(|head| enabled(head)).map(|head| head.id).collect();
    // The checks follow each other in rounds, so each gets its part of the request's time.
    let rounds = u32::try_from(ids.len().div_ceil(CHECKED_AT_ONCE)).unwrap_or(u32::MAX).max(1);
    let time = CHECK_TIME.min(app.wire.outbound.limits().total_time);
    let time = time.min(app.config.limits.request_time * 3 / 4 / rounds);
    let outbound = &app.wire.for_all_checks();
    let checked = ids.into_iter().enumerate().map(|(number, id)| {
        let place = first.take();
        async move {
            let place = match place {
                Some(place) => place,
                None => app.wire.place(entry.workspace()?, entry.context.now).await?,
            };
            Ok::<_, ApiError>((number, check(app, entry, id, (time, outbound), place).await?))
        }
    });
    let mut reports: Vec<(usize, Option<(Report, Timestamp)>)> =
        stream::iter(checked).buffer_unordered(CHECKED_AT_ONCE).try_collect().await?;
    reports.sort_unstable_by_key(|(number, _)| *number);
    let integrations = reports.into_iter().filter_map(|(_, found)| Some(found?.0)).collect();
    Ok(Reports { checked_at: entry.context.now, integrations })
}

/// An integration with its opened credentials, or the reason why they cannot be used.
struct ProbedIntegration {
    integration: Integration,
    probe: Result<Probe, String>,
}

/// The best target for a health check. For an EHR it is the search that deliveries make, because only that shows whether
/// the credentials suffice. For a REST integration it is the first endpoint that needs no parameters and uses the
/// integration's own credentials.
fn target(workspace: WorkspaceId, integration: &Integration) -> Target {
    let form = deliveries::form_of(&integration.name);
    let search = |form| Search { form, system: deliveries::identifiers_of(workspace) };
    if integration.config.protocol == Protocol::Fhir {
        return Target::Fhir(search(form.filter(|_| integration.builtin).unwrap_or(Form::Communication)));
    }
    // A search of patient cases needs a patient, and there is none to name.
    if let Some(form) = form.filter(|form| integration.builtin && *form != Form::PatientCase) {
        return Target::Search(search(form));
    }
    let fit = |endpoint: &&Endpoint<AuthConfig>| {
        endpoint.method == "GET"
            && !endpoint.path.contains('{')
            && own_base_url(endpoint).is_none()
            && endpoint.auth.is_none()
    };
    let found = integration.config.endpoints.iter().find(fit);
    found.map_or(Target::Root, |endpoint| match headers(endpoint) {
        Ok(headers) => Target::Path { path: endpoint.path.clone(), headers },
        Err(_) => Target::Root,
    })
}

/// The health of an integration and the time of its last change. `None` if the integration does not exist.
async fn check(
    app: &Arc<App>,
    entry: &Entry,
    id: IntegrationId,
    (time, outbound): (Duration, &Outbound),
    _place: Share,
) -> Result<Option<(Report, Timestamp)>, ApiError> {
    let (workspace, holder) = (entry.workspace()?.id, actions::holder(entry)?);
    let stored = app.db.read("integrations.check", move |tx| stored_connection(tx, workspace, id)).await?;
    let Some(stored) = stored else { return Ok(None) };
    let keys = app.wire.keys.clone();
    let opened = app.work.run(holder, move || open(workspace, stored, &keys)).await??;
    let checked = match opened.probe {
        Err(why) => Checked::without_probe(Health::Misconfigured, why),
        Ok(probe) => probe.run(outbound, &app.wire.tokens, Instant::now() + time).await,
    };
    let report = Report {
        id,
        name: opened.integration.name,
        status: checked.health.name(),
        detail: checked.detail,
        http_status: checked.http_status,
        duration_ms: milliseconds(checked.duration),
    };
    Ok(Some((report, opened.integration.updated_at)))
}

/// `ConnectionTestResponse`: the result of a test of an integration's connection.
#[derive(Serialize)]
struct ConnectionTestResponse {
    integration_id: IntegrationId,
    status: &'static str,
    detail: Option<String>,
    message: String,
    http_status: Option<u16>,
    duration_ms: f64,
    tested_at: Timestamp,
    last_tested_at: Timestamp,
    last_test_status: &'static str,
}

/// Tests the connection of one integration, enabled or not, and stores the result with the integration. The
/// test is recorded before the call is made.
pub async fn test_connection(
    app: &Arc<App>,
    entry: Entry,
    id: IntegrationId,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let (workspace, at) = (entry.workspace()?.id, entry.context.now);
    let place = app.wire.place(entry.workspace()?, at).await?;
    let first = repeat.clone();
    let begin = move |write: &mut Write<'_, '_>, _: &Held| {
        let named = store::summary(write, workspace, id)?.ok_or(ApiError::no_integration())?;
        let begun = first.begin_apart(write)?;
        if matches!(begun, Begun::Yours) {
            // The test is recorded before the call is made, because a call cannot be taken back.
            write.record("integration.test_connection", actions::subject(id, &named.name), json!({}))?;
        }
        Ok(begun)
    };
    if let Begun::Answered(reply) = entry.write(app, "integrations.begin_connection_test", begin).await? {
        return Ok(reply);
    }
    let time = CHECK_TIME.min(app.wire.outbound.limits().total_time);
    let checked = check(app, &entry, id, (time, &app.wire.for_one_call()), place).await?;
    let (report, configured_at) = checked.ok_or(ApiError::no_integration())?;
    let tested = ConnectionTestResponse {
        integration_id: id,
        status: report.status,
        message: report.detail.clone().unwrap_or_else(|| "it answers, and takes the credentials".to_owned()),
        detail: report.detail,
        http_status: report.http_status,
        duration_ms: report.duration_ms,
        tested_at: at,
        last_tested_at: at,
        last_test_status: report.status,
    };
    let reply = Reply::ok(&tested)?;
    let sealed = repeat.seal_apart(&reply.body)?;
    let status = tested.status;
    let finish = move |tx: &mut Tx<'_>| {
        store::note_test(tx, workspace, id, configured_at, at, status)?;
        repeat.finish_apart(tx, sealed.as_deref())
    };
    app.db.write("integrations.end_connection_test", finish).await?;
    Ok(reply)
}

fn open(
    workspace: WorkspaceId,
    stored: StoredConnection,
    keys: &Keys,
) -> Result<ProbedIntegration, ward_db::Error> {
    let integration = stored.integration.parse()?;
    if integration.config.protocol == Protocol::Mcp {
        let probe = Err("Ward stores tool servers and never calls them".to_owned());
        return Ok(ProbedIntegration { integration, probe });
    }
    let probe = own_auth(&integration, &stored.sealed, keys).map(|auth| Probe {
        gate: integration.id.to_string(),
        base_url: integration.config.base_url.clone(),
        target: target(workspace, &integration),
        auth,
    });
    Ok(ProbedIntegration { integration, probe })
}

//! Conversions of the environment of a workspace, and the findings (with codes) against one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use ward_db::{Error, Timestamp, Tx};

use super::actions::{touch, wrong_slug};
use super::{Workspace, store};
use crate::app::App;
use crate::audit::Write;
use crate::error::ApiError;
use crate::gate::idempotency::{Repeat, Secrecy};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::ids::WorkspaceId;
use crate::{calls, deliveries, integrations, test_callers};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The conversion is refused unless the request accepts the finding by its code.
    Blocker,
    /// The conversion proceeds, and the answer lists the finding.
    Warning,
}

/// The code of a finding. The document has the same list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObstacleCode {
    /// The connector's integration was never provisioned.
    IntegrationNotProvisioned,
    /// The connector's integration is switched off.
    IntegrationDisabled,
    /// The connector's integration has an incomplete address.
    IntegrationUnconfigured,
    /// An enabled integration is called without TLS.
    IntegrationWithoutTls,
    RealCallsPresent,
    NoConnector,
    /// The list of test callers is not empty.
    TestCallersRemain,
    /// The list of test credentials is not empty.
    TestCredentialsRemain,
    DeliveriesWaiting,
}

impl ObstacleCode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::IntegrationNotProvisioned => "integration_not_provisioned",
            Self::IntegrationDisabled => "integration_disabled",
            Self::IntegrationUnconfigured => "integration_unconfigured",
            Self::IntegrationWithoutTls => "integration_without_tls",
            Self::RealCallsPresent => "real_calls_present",
            Self::NoConnector => "no_connector",
            Self::TestCallersRemain => "test_callers_remain",
            Self::TestCredentialsRemain => "test_credentials_remain",
            Self::DeliveriesWaiting => "deliveries_waiting",
        }
    }

    const fn severity(self) -> Severity {
        match self {
            Self::IntegrationNotProvisioned
            | Self::IntegrationDisabled
            | Self::IntegrationUnconfigured
            | Self::IntegrationWithoutTls
            | Self::RealCallsPresent => Severity::Blocker,
            Self::NoConnector
            | Self::TestCallersRemain
            | Self::TestCredentialsRemain
            | Self::DeliveriesWaiting => Severity::Warning,
        }
    }

    const fn message(self) -> &'static str {
        match self {
            Self::IntegrationNotProvisioned => {
                "The connector's integration is not provisioned, so finished calls reach no EHR."
            }
            Self::IntegrationDisabled => {
                "The connector's integration is disabled, so nothing is sent to the EHR."
            }
            Self::IntegrationUnconfigured => {
                "The connector's integration has an incomplete base_url, so nothing is sent to the EHR."
            }
            Self::IntegrationWithoutTls => "An enabled integration is called over http, without TLS.",
            Self::RealCallsPresent => "The workspace has real calls, with data of patients.",
            Self::NoConnector => "The workspace has no connector, so finished calls reach no EHR.",
            Self::TestCallersRemain => {
                "Numbers are on the list of test callers; calls with them stay out of the EHR."
            }
            Self::TestCredentialsRemain => {
                "Keys are on the list of test credentials; calls made with them stay out of the EHR."
            }
            Self::DeliveriesWaiting => {
                "Deliveries are waiting; they will be sent to the EHR after the conversion as well."
            }
        }
    }
}

/// A reason against a conversion, as requests and answers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ConversionObstacle {
    /// The code, which a request can accept.
    pub code: ObstacleCode,
    /// Whether the finding blocks a conversion.
    pub severity: Severity,
    pub message: &'static str,
}

impl From<ObstacleCode> for ConversionObstacle {
    fn from(code: ObstacleCode) -> Self {
        Self { code, severity: code.severity(), message: code.message() }
    }
}

/// The facts about the connector's own integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltIn {
    pub enabled: bool,
    /// Whether its base URL is set and has no placeholder left.
    pub configured: bool,
}

/// The facts that decide the findings.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each flag is an independent fact")]
pub struct Facts {
    pub connector: bool,
    /// The connector's integration, if it was provisioned.
    pub built_in: Option<BuiltIn>,
    /// Whether an enabled integration is called without TLS.
    pub without_tls: bool,
    /// Whether the list of test callers is not empty.
    pub test_callers: bool,
    /// Whether the list of test credentials is not empty.
    pub test_credentials: bool,
    /// Whether deliveries are waiting to be sent.
    pub waiting: bool,
    pub real_calls: bool,
}

/// The findings against a conversion of a workspace with these facts to `target`.
pub fn findings(facts: &Facts, target: &str) -> Vec<ConversionObstacle> {
    let production = target == "production";
    let built_in = |fault: fn(BuiltIn) -> bool| facts.built_in.is_some_and(fault);
    let found = [
        (ObstacleCode::IntegrationNotProvisioned, production && facts.connector && facts.built_in.is_none()),
        (ObstacleCode::IntegrationDisabled, production && built_in(|it| !it.enabled)),
        (ObstacleCode::IntegrationUnconfigured, production && built_in(|it| !it.configured)),
        (ObstacleCode::IntegrationWithoutTls, production && facts.without_tls),
        (ObstacleCode::RealCallsPresent, !production && facts.real_calls),
        (ObstacleCode::NoConnector, production && !facts.connector),
        (ObstacleCode::TestCallersRemain, production && facts.test_callers),
        (ObstacleCode::TestCredentialsRemain, production && facts.test_credentials),
        (ObstacleCode::DeliveriesWaiting, facts.waiting),
    ];
    found.into_iter().filter(|(_, holds)| *holds).map(|(code, _)| code.into()).collect()
}

/// The codes of the blockers that a request does not accept.
pub fn unaccepted(findings: &[ConversionObstacle], accepted: &[ObstacleCode]) -> Vec<&'static str> {
    let open = findings.iter().filter(|it| it.severity == Severity::Blocker && !accepted.contains(&it.code));
    open.map(|it| it.code.name()).collect()
}

/// Reads the facts of a workspace, except for its calls.
fn facts(tx: &mut Tx<'_>, workspace: &Workspace, real_calls: bool, now: Timestamp) -> Result<Facts, Error> {
    let (test_callers, test_credentials) = test_callers::has_test_lists(tx, workspace.id, now)?;
    let connector = workspace.connector_type.as_deref();
    let fitness = integrations::fitness(tx, workspace.id, connector)?;
    Ok(Facts {
        connector: connector.is_some(),
        built_in: fitness.built_in.map(|(enabled, configured)| BuiltIn { enabled, configured }),
        without_tls: fitness.without_tls,
        test_callers,
        test_credentials,
        waiting: deliveries::waits(tx, workspace.id)?,
        real_calls,
    })
}

/// Whether the workspace has real calls. The query may read all calls of the workspace, so it never runs in
/// a write.
async fn real_calls(app: &App, workspace: WorkspaceId) -> Result<bool, ApiError> {
    let look = move |tx: &mut Tx<'_>| calls::any_real(tx, workspace).map_err(ApiError::from);
    app.db.read_long("workspaces.real_calls", look).await
}

/// The JSON of the contract's schema `EnvironmentCheckResponse`.
#[derive(Serialize)]
pub struct EnvironmentCheckResponse {
    current: String,
    target: String,
    warnings: Vec<&'static str>,
    findings: Vec<ConversionObstacle>,
}

/// Lists the findings against a conversion, and changes nothing.
pub async fn check(app: &App, entry: &Entry, target: String) -> Result<EnvironmentCheckResponse, ApiError> {
    let workspace = entry.workspace()?.clone();
    let (current, now) = (workspace.environment.clone(), entry.context.now);
    let real_calls = real_calls(app, workspace.id).await?;
    let facts = app
        .db
        .read("workspaces.check_environment", move |tx| {
            facts(tx, &workspace, real_calls, now).map_err(ApiError::from)
        })
        .await?;
    let findings = if current == target { Vec::new() } else { findings(&facts, &target) };
    Ok(EnvironmentCheckResponse {
        current,
        target,
        warnings: findings.iter().map(|it| it.message).collect(),
        findings,
    })
}

#[derive(Clone, Debug, Deserialize)]
pub struct ConvertEnvironmentRequest {
    target: String,
    confirm_slug: String,
    accept: Vec<ObstacleCode>,
}

/// Converts the environment, if the request accepts every blocker by its code (409 otherwise). The
/// conversion to the current environment changes nothing.
pub async fn convert(
    app: &Arc<App>,
    entry: Entry,
    conversion: ConvertEnvironmentRequest,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let real_calls = real_calls(app, entry.workspace()?.id).await?;
    let convert = move |write: &mut Write<'_, '_>, held: &Held| {
        if conversion.confirm_slug != held.seen.workspace.slug {
            return Err(wrong_slug("confirm_slug", &conversion.confirm_slug));
        }
        repeat.once(write, Secrecy::Open, |write| {
            let (mut workspace, now) = (held.seen.workspace.clone(), write.now());
            if workspace.environment == conversion.target {
                return Ok(workspace);
            }
            let facts = facts(write, &workspace, real_calls, now)?;
            let found = findings(&facts, &conversion.target);
            let blocked = unaccepted(&found, &conversion.accept);
            if !blocked.is_empty() {
                return Err(blocked_by(&blocked));
            }
            let codes: Vec<ObstacleCode> = found.iter().map(|it| it.code).collect();
            let what = json!({
                "changes": { "environment": { "from": workspace.environment, "to": conversion.target } },
                "findings": codes,
            });
            workspace.environment.clone_from(&conversion.target);
            touch(&mut workspace, now);
            store::update(write, &workspace)?;
            write.record("workspace.convert_environment", workspace.subject(), what)?;
            Ok(workspace)
        })
    };
    entry.write(app, "workspaces.convert_environment", convert).await
}

fn blocked_by(codes: &[&str]) -> ApiError {
    let detail = format!(
        "The conversion is blocked by {}. Correct the causes, or accept each by its code in `accept`.",
        codes.join(", ")
    );
    ApiError::conflict("conversion_blocked", "").saying(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: Facts = Facts {
        connector: true,
        built_in: Some(BuiltIn { enabled: true, configured: true }),
        without_tls: false,
        test_callers: false,
        test_credentials: false,
        waiting: false,
        real_calls: true,
    };

    fn codes(facts: Facts, target: &str) -> Vec<&'static str> {
        findings(&facts, target).iter().map(|it| it.code.name()).collect()
    }

    #[test]
    fn each_fact_has_its_finding() {
        assert!(codes(CLEAN, "production").is_empty());
        let built_in =
            |enabled, configured| Facts { built_in: Some(BuiltIn { enabled, configured }), ..CLEAN };
        for (facts, target, code) in [
            (Facts { built_in: None, ..CLEAN }, "production", "integration_not_provisioned"),
            (built_in(false, true), "production", "integration_disabled"),
            (built_in(true, false), "production", "integration_unconfigured"),
            (Facts { without_tls: true, ..CLEAN }, "production", "integration_without_tls"),
            (Facts { connector: false, built_in: None, ..CLEAN }, "production", "no_connector"),
            (Facts { test_callers: true, ..CLEAN }, "production", "test_callers_remain"),
            (Facts { test_credentials: true, ..CLEAN }, "production", "test_credentials_remain"),
            (Facts { waiting: true, ..CLEAN }, "production", "deliveries_waiting"),
            (CLEAN, "staging", "real_calls_present"),
        ] {
            assert_eq!(codes(facts, target), [code]);
        }
    }

    #[test]
    fn a_code_is_written_as_it_is_named() {
        for finding in
            findings(&Facts { built_in: None, without_tls: true, waiting: true, ..CLEAN }, "production")
        {
            assert_eq!(json!(finding.code), finding.code.name());
        }
    }
}

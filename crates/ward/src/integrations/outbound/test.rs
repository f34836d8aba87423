//! The test of an endpoint: one call with the parameters of a request, and every step of processing its
//! answer.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};
use ward_contract::validate::{Json, Loc, Problem, serialized_length};
use ward_db::{Timestamp, Tx};
use ward_ehr::endpoint::{EndpointAnswer, EndpointRequest, Outcome, Shape};
use ward_ehr::template::wrong_parameters;

use super::client::units_of;
use super::credentials::{Keys, endpoint_auth};
use super::{headers, milliseconds};
use crate::access::Permission;
use crate::app::App;
use crate::audit::Write;
use crate::error::ApiError;
use crate::forbidden::{Authority, Forbidden};
use crate::gate::idempotency::{Begun, Repeat};
use crate::gate::{Entry, Held};
use crate::http::Reply;
use crate::ids::IntegrationId;
use crate::integrations::secrets::SealedSecret;
use crate::integrations::{AuthConfig, Endpoint, Integration, Protocol, actions, own_base_url, store};
use crate::shares::{Holder, Share};

fn wired(
    integration: &Integration,
    index: usize,
    sealed: &[SealedSecret],
    keys: &Keys,
) -> Result<EndpointRequest, String> {
    let endpoint = &integration.config.endpoints[index];
    if integration.config.protocol == Protocol::Mcp {
        return Err("Ward stores tool servers and never calls them".to_owned());
    }
    Ok(EndpointRequest {
        gate: integration.id.to_string(),
        method: Method::from_bytes(endpoint.method.as_bytes()).map_err(|_| "the method is not valid")?,
        base_url: own_base_url(endpoint).unwrap_or(&integration.config.base_url).to_owned(),
        path: endpoint.path.clone(),
        headers: headers(endpoint)?,
        form: endpoint.body_format == "form",
        auth: endpoint_auth(integration, (index, endpoint), sealed, keys)?,
        max_retries: endpoint.retry_config.max_retries,
        retry_on_status: endpoint.retry_config.retry_on_status.clone(),
        shape: Shape {
            filter: endpoint.response_filter.clone(),
            mapping: endpoint.response_mapping.clone(),
            result_key: endpoint.result_key.clone(),
            result_template: endpoint.result_template.clone(),
            max_length: usize::try_from(endpoint.max_result_length).unwrap_or_default(),
        },
    })
}

#[derive(Serialize)]
struct TestEndpointResponse<'o> {
    status_code: Option<u16>,
    duration_ms: f64,
    retries: u32,
    raw_response: &'o Value,
    after_filter: &'o Value,
    after_mapping: &'o Value,
    final_result: Option<&'o str>,
    error: Option<&'o str>,
}

impl<'o> From<&'o Outcome> for TestEndpointResponse<'o> {
    fn from(outcome: &'o Outcome) -> Self {
        Self {
            status_code: outcome.status,
            duration_ms: milliseconds(outcome.duration),
            retries: outcome.retries,
            raw_response: &outcome.raw,
            after_filter: &outcome.after_filter,
            after_mapping: &outcome.after_mapping,
            final_result: outcome.final_result.as_deref(),
            error: outcome.error.as_deref(),
        }
    }
}

/// The text of a test's answer, with the share of its call and its share of memory. The shares are freed when the
/// answer has been sent, so that answers that no client reads count.
struct AnswerText {
    text: Bytes,
    _place: Share,
    _memory: Share,
}

impl AsRef<[u8]> for AnswerText {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// The text of a test's answer, and what is stored of it for a retry.
struct TestAnswer {
    text: Vec<u8>,
    sealed: Option<Vec<u8>>,
    memory: Share,
}

/// Parses, filters and maps an answer, and writes every step as the text of the test's answer. The parsed
/// trees exist only here, within the workspace's share of the memory for them. Afterwards the share is as large as
/// the text.
async fn worked_on(
    app: &Arc<App>,
    holder: Holder,
    ended: Result<EndpointAnswer, String>,
    repeat: Repeat,
) -> Result<TestAnswer, ApiError> {
    let weight = ended.as_ref().map_or(0, EndpointAnswer::weight);
    let mut memory = app.wire.memory_for(holder, weight).await?;
    let most = app.wire.most_memory();
    let work = move || {
        let outcome = match ended {
            Ok(ended) => ended.read(most),
            Err(error) => Outcome { error: Some(error), ..Outcome::default() },
        };
        let answer = TestEndpointResponse::from(&outcome);
        let length = serialized_length(&answer).map_err(ApiError::internal)?;
        // Escaped, a text can be several times as long as the answer that it repeats.
        memory.resize(units_of(length).max(memory.units())).map_err(ApiError::share_used_up)?;
        let mut text = Vec::with_capacity(length);
        serde_json::to_writer(&mut text, &answer).map_err(ApiError::internal)?;
        let sealed = repeat.seal_apart(&text)?;
        drop(outcome);
        memory.resize(units_of(length)).map_err(ApiError::share_used_up)?;
        Ok(TestAnswer { text, sealed, memory })
    };
    app.work.run(holder, work).await?
}

/// An endpoint to call, and the problems with the parameters of the call.
struct AskedEndpoint {
    integration: Integration,
    index: usize,
    wrong: Vec<Problem>,
}

impl AskedEndpoint {
    fn of(integration: Integration, name: &str, params: &Map<String, Value>) -> Result<Self, ApiError> {
        let index = integration.config.endpoints.iter().position(|known| known.name == name);
        let index = index.ok_or(ApiError::no_endpoint())?;
        let wrong = wrong_params(&integration.config.endpoints[index], params);
        Ok(Self { integration, index, wrong })
    }

    fn endpoint(&self) -> &Endpoint<AuthConfig> {
        &self.integration.config.endpoints[self.index]
    }

    /// Checks that the caller's permissions suffice. A call of a connector's own integration, or of any EHR, may
    /// answer with patient data, whatever the method.
    fn allowed_by(&self, authority: Authority) -> Result<(), Forbidden> {
        let changes = self.endpoint().method != "GET";
        let reads_calls = self.integration.builtin || self.integration.config.protocol == Protocol::Fhir;
        if changes {
            authority.has(Permission::IntegrationUpdate)?;
        }
        if reads_calls { authority.has(Permission::CallView) } else { Ok(()) }
    }
}

fn wrong_params(endpoint: &Endpoint<AuthConfig>, params: &Map<String, Value>) -> Vec<Problem> {
    let declared = endpoint.declared_parameters();
    let wrong = wrong_parameters(&endpoint.path, &declared, params, endpoint.allow_reserved);
    let problem = |name: String, message: &str| {
        // Parameters may belong to a patient, so no answer repeats their values.
        let shown =
            if params.contains_key(&name) { Json::String("**********".to_owned()) } else { Json::Null };
        let loc = vec![Loc::from("body"), Loc::from("params"), Loc::from(name)];
        Problem::value_error(loc, message, shown)
    };
    wrong.into_iter().map(|wrong| problem(wrong.name, wrong.message)).collect()
}

/// How often a test begins again because the integration changed between the read and the call.
const MOST_BEGUN: usize = 5;

/// Calls an endpoint and returns every step. The call is recorded before it is made. A failure of the other
/// side is a result, not an error.
pub async fn run(
    app: &Arc<App>,
    entry: Entry,
    id: IntegrationId,
    endpoint: String,
    params: Map<String, Value>,
    repeat: Repeat,
) -> Result<Reply, ApiError> {
    let (holder, params) = (actions::holder(&entry)?, Arc::new(params));
    let place = app.wire.place(entry.workspace()?, entry.context.now).await?;
    let outbound = app.wire.for_one_call();
    for _ in 0..MOST_BEGUN {
        let integration = actions::read(app, &entry, id).await?;
        let (name, given) = (endpoint.clone(), params.clone());
        let asked = app.work.run(holder, move || AskedEndpoint::of(integration, &name, &given)).await??;
        let asked = Arc::new(asked);
        let sealed = match begin(app, &entry, asked.clone(), repeat.clone()).await? {
            Beginning::Changed => continue,
            Beginning::Answered(mut reply) => {
                let memory = app.wire.memory_for(holder, reply.body.len()).await?;
                reply.body =
                    Bytes::from_owner(AnswerText { text: reply.body, _place: place, _memory: memory });
                return Ok(reply);
            }
            Beginning::Yours(sealed) => sealed,
        };
        let keys = app.wire.keys.clone();
        let wired =
            app.work.run(holder, move || wired(&asked.integration, asked.index, &sealed, &keys)).await?;
        let ended = match wired {
            Ok(call) => Ok(call.send(&outbound, &app.wire.tokens, &params).await),
            Err(error) => Err(error),
        };
        let TestAnswer { text, sealed, memory } = worked_on(app, holder, ended, repeat.clone()).await?;
        if repeat.has_key() {
            let finish = move |tx: &mut Tx<'_>| repeat.finish_apart(tx, sealed.as_deref());
            app.db.write("integrations.end_test", finish).await?;
        }
        let body = Bytes::from_owner(AnswerText { text: text.into(), _place: place, _memory: memory });
        return Ok(Reply::raw_json(StatusCode::OK, body));
    }
    Err(ApiError::unavailable("unavailable", "Other requests are changing this integration. Try again.", 1))
}

enum Beginning {
    /// The integration no longer has the version that was read.
    Changed,
    /// The test is a retry of an earlier one, and this is its answer.
    Answered(Reply),
    /// The caller must make the call, with these secrets.
    Yours(Vec<SealedSecret>),
}

/// Authorizes the caller again, takes the `Idempotency-Key` and records the test.
async fn begin(
    app: &Arc<App>,
    entry: &Entry,
    asked: Arc<AskedEndpoint>,
    repeat: Repeat,
) -> Result<Beginning, ApiError> {
    let begin = move |write: &mut Write<'_, '_>, held: &Held| {
        let (workspace, id) = (write.row(), asked.integration.id);
        let present: Option<Timestamp> = store::changed_at(write, workspace, id)?;
        if present.ok_or(ApiError::no_integration())? != asked.integration.updated_at {
            return Ok(Beginning::Changed);
        }
        asked.allowed_by(held.seen.authority).map_err(ApiError::forbidden)?;
        if let Begun::Answered(reply) = repeat.begin_apart(write)? {
            return Ok(Beginning::Answered(reply));
        }
        if !asked.wrong.is_empty() {
            return Err(ApiError::invalid(asked.wrong.clone()));
        }
        actions::record_test(write, &asked.integration, asked.endpoint())?;
        Ok(Beginning::Yours(store::sealed(write, workspace, id)?))
    };
    entry.write(app, "integrations.begin_test", begin).await
}

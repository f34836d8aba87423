//! Integrations: a workspace's configured connections to outside systems.

pub mod actions;
pub mod api;
mod connectors;
mod delivery;
pub mod keys;
mod kinds;
pub mod outbound;
pub mod rules;
mod secrets;
mod store;
mod stored;
mod told;
mod urls;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use ward_db::{Error, Timestamp};

use crate::guard::WorkspaceGuard;
use crate::ids::{IntegrationId, WorkspaceId};
use crate::quotas::{self, Change};
use crate::workspaces;

pub use actions::forget_secrets;
pub use connectors::{Takes, takes};
pub use delivery::{
    CallChoice, CallDirection, CallEnd, DeliverySettings, DocumentStatus, EncounterRule, PatientRule,
    receiver, settings as delivery_settings,
};
pub use kinds::{AuthKind, Protocol};
pub use outbound::{Connection, connection};
pub use secrets::{SecretAt, count_under_other_keys, reseal, sealed_rows};
pub use store::{changed_at, exists_by_id, fitness, name, readiness};
pub use stored::over_long;

/// The most integrations of a workspace: its list is read whole, and all are checked by one request.
const MOST: usize = 100;

/// A configured connection of a workspace to an external system.
#[derive(Clone, Debug)]
pub struct Integration {
    pub id: IntegrationId,
    pub workspace: WorkspaceId,
    /// Its name, unique in the workspace. The connectors' names are reserved for the rows that provisioning seeds.
    pub name: String,
    /// Whether provisioning seeded it, so that it can only be disabled.
    pub builtin: bool,
    pub created_at: Timestamp,
    /// The timestamp of the last change, which always grows.
    pub updated_at: Timestamp,
    /// The position in its workspace's list.
    pub position: i64,
    /// The last test of its connection since its last change.
    pub last_tested_at: Option<Timestamp>,
    /// The status that this test found.
    pub last_test_status: Option<String>,
    /// The part that its operator configures.
    pub config: IntegrationConfig,
}

/// The part of an integration that its operator configures. It contains references to secrets, never their
/// values.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegrationConfig {
    pub display_name: String,
    /// The protocol of the outside system.
    pub protocol: Protocol,
    /// The base URL; empty or with `{placeholders}` until the operator completes it.
    pub base_url: String,
    /// The authentication of calls; `None` for none.
    pub auth: Option<AuthConfig>,
    /// The calls that an agent or a person can make.
    pub endpoints: Vec<Endpoint<AuthConfig>>,
    /// The five fields of a tool server, stored as given and never run.
    pub mcp: Mcp,
    /// How calls are written to it.
    pub delivery: DeliverySettings,
    /// Whether calls and deliveries may use it.
    pub enabled: bool,
}

/// How a client presents its secret (RFC 6749 section 2.3.1; the names are those of RFC 7591 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMethod {
    /// In a header, with HTTP Basic.
    ClientSecretBasic,
    /// In the form of the token request.
    ClientSecretPost,
}

/// The contract's `AuthConfig`: the public fields, and references to secrets. Absent fields are left out of
/// the JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthConfig {
    /// The kind of authentication, which decides the other fields.
    #[serde(rename = "type")]
    pub kind: AuthKind,
    /// The name of the header for an API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_name: Option<String>,
    /// The client id at the token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// Where a token request carries the client's id and secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth_method: Option<ClientAuthMethod>,
    /// The scopes of a token request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The scopes of a token request to Google.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcp_scopes: Option<Vec<String>>,
    /// The lifetime of a token whose answer names none, seconds.
    #[serde(default = "an_hour")]
    pub token_lifetime_seconds: i64,
    /// The signature algorithm: `RS384`, `ES384` or, outside of SMART, `RS256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion_algorithm: Option<String>,
    /// The claim `aud` of the assertion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion_audience: Option<String>,
    /// The claim `iss` of the assertion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion_issuer: Option<String>,
    /// The claim `sub` of the assertion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion_subject: Option<String>,
    /// The header `kid` of the assertion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion_kid: Option<String>,
    /// Whether the assertion contains the scopes.
    #[serde(default)]
    pub assertion_scopes_in_jwt: bool,
    /// Whether the header of the assertion names the integration's JWK set, as `jku`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assertion_includes_jku: bool,
    /// The reference to an API key. The names of the four references are the platform's; their values are
    /// Ward's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssm_param_path: Option<String>,
    /// The reference to a fixed bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ssm_param_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_ssm_param_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_ssm_param_path: Option<String>,
}

const fn an_hour() -> i64 {
    3600
}

/// The contract's `EndpointConfig`, with its authentication as `A`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint<A> {
    /// The name, unique in the integration.
    pub name: String,
    /// The purpose, for people and for the voice agent.
    pub description: String,
    /// The path below the base URL, with `{placeholders}`.
    pub path: String,
    /// The HTTP method, such as `GET`.
    pub method: String,
    /// A base URL that replaces the integration's.
    pub base_url: Option<String>,
    /// Whether a path parameter may contain a slash, a backslash or a dot segment.
    #[serde(default)]
    pub allow_reserved: bool,
    pub auth: Option<A>,
    /// Headers that every call sends, as strings by name.
    pub headers: Map<String, Value>,
    /// A JSON Schema of the parameters. A call sends only parameters that the schema or the path names;
    /// other keywords are for callers.
    pub input_schema: Value,
    /// The format of a body: `json` or `form`.
    pub body_format: String,
    /// Paths of the values to keep.
    pub response_filter: Option<Vec<String>>,
    /// New names, and the paths of their values.
    pub response_mapping: Option<Map<String, Value>>,
    pub result_key: Option<String>,
    /// The text of the result, with `{placeholders}` for values of the answer.
    pub result_template: Option<String>,
    /// `interrupt` or `queue`; only the voice agent uses it.
    pub result_delivery: String,
    /// The longest result in characters; 0 for no bound.
    pub max_result_length: i64,
    /// When a failed call is retried.
    pub retry_config: Retry,
}

impl<A> Endpoint<A> {
    /// The names of the parameters that the schema declares.
    fn declared_parameters(&self) -> Vec<&str> {
        let mut names = Vec::new();
        let mut schemas = vec![&self.input_schema];
        while let Some(schema) = schemas.pop() {
            names
                .extend(schema["properties"].as_object().into_iter().flat_map(Map::keys).map(String::as_str));
            for combined in ["allOf", "anyOf", "oneOf"] {
                schemas.extend(schema[combined].as_array().into_iter().flatten());
            }
        }
        names
    }

    fn with_auth<B>(self, auth: Option<B>) -> Endpoint<B> {
        Endpoint {
            name: self.name,
            description: self.description,
            path: self.path,
            method: self.method,
            base_url: self.base_url,
            allow_reserved: self.allow_reserved,
            auth,
            headers: self.headers,
            input_schema: self.input_schema,
            body_format: self.body_format,
            response_filter: self.response_filter,
            response_mapping: self.response_mapping,
            result_key: self.result_key,
            result_template: self.result_template,
            result_delivery: self.result_delivery,
            max_result_length: self.max_result_length,
            retry_config: self.retry_config,
        }
    }

    /// An endpoint with the contract's defaults.
    fn new(name: &str, method: &str, path: &str, description: String) -> Self {
        Self {
            name: name.to_owned(),
            description,
            path: path.to_owned(),
            method: method.to_owned(),
            base_url: None,
            allow_reserved: false,
            auth: None,
            headers: Map::new(),
            input_schema: json!({}),
            body_format: "json".to_owned(),
            response_filter: None,
            response_mapping: None,
            result_key: None,
            result_template: None,
            result_delivery: "interrupt".to_owned(),
            max_result_length: 0,
            retry_config: Retry { max_retries: 2, retry_on_status: vec![429, 502, 503, 504] },
        }
    }
}

/// The base URL of the endpoint's own; an empty one counts as absent.
fn own_base_url<A>(endpoint: &Endpoint<A>) -> Option<&str> {
    endpoint.base_url.as_deref().filter(|url| !url.is_empty())
}

/// When a failed call is retried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The number of retries after the first attempt.
    pub max_retries: u32,
    pub retry_on_status: Vec<u16>,
}

/// The fields of a tool server, which Ward stores and never runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mcp {
    /// The transport: `stdio`, `sse` or `http`.
    pub mcp_transport: Option<String>,
    pub mcp_url: Option<String>,
    /// The command that would start the server.
    pub mcp_command: Option<String>,
    pub mcp_args: Option<Vec<String>>,
    pub mcp_headers: Option<Map<String, Value>>,
}

/// Inserts the connector's default integration, if the workspace has none of its name. Returns whether it
/// did.
pub fn seed(tx: &mut WorkspaceGuard<'_, '_>, connector: &str, now: Timestamp) -> Result<bool, Error> {
    let workspace = tx.row();
    let Some(config) = connectors::default_of(connector) else {
        return Err(Error::unreadable("a connector that is not in the table"));
    };
    if store::exists(tx, workspace, connector)? {
        return Ok(false);
    }
    let position = workspaces::next_position(tx, now)?;
    let seeded = Integration {
        last_tested_at: None,
        last_test_status: None,
        id: IntegrationId::at(now),
        workspace,
        name: connector.to_owned(),
        builtin: true,
        created_at: now,
        updated_at: now,
        position,
        config,
    };
    store::insert(tx, &seeded, &store::Texts::of(&seeded.config)?)?;
    let bytes = store::weigh(tx, seeded.id)?;
    quotas::give_back(tx, workspace, Change { bytes, integrations: 1, ..Change::default() })?;
    Ok(true)
}

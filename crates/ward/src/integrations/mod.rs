//! Integrations: a workspace's configured connections to outside systems.

pub mod actions;
pub mod api;
mod connectors;
pub mod outbound;
pub mod rules;
mod secrets;
mod store;
mod stored;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use ward_db::{Error, Timestamp, Tx};

use crate::ids::{IntegrationId, WorkspaceId};
use crate::quotas::{self, Change};
use crate::workspaces;

pub use actions::forget_secrets;
pub use outbound::{Connection, connection};
pub use secrets::{SecretAt, count_under_other_keys, reseal, sealed_rows};
pub use store::{built_in, changed_at, exists_by_id, fitness, name, readiness};
pub use stored::over_long;

/// How many integrations a workspace may have: its list is read whole, and they are checked at once.
const MOST: usize = 100;

/// An integration.
#[derive(Clone, Debug)]
pub struct Integration {
    /// Its id.
    pub id: IntegrationId,
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// Its name, unique in the workspace. The connectors' names are reserved for the rows that provisioning seeds.
    pub name: String,
    /// Whether provisioning seeded it.
    pub builtin: bool,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it last changed; always grows.
    pub updated_at: Timestamp,
    /// Its place in its workspace's list.
    pub position: i64,
    /// When its connection was last tested since its last change.
    pub last_tested_at: Option<Timestamp>,
    /// What that test found.
    pub last_test_status: Option<String>,
    /// What its operator configures.
    pub config: Config,
}

/// What an operator configures of an integration. Secrets are references here, never values.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Its name for people.
    pub display_name: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Where it is; empty, or with `{placeholders}`, until the operator says so.
    pub base_url: String,
    /// How calls authenticate.
    pub auth: Option<AuthConfig>,
    /// What can be called.
    pub endpoints: Vec<Endpoint<AuthConfig>>,
    /// The five fields of a tool server, stored as given and never run.
    pub mcp: Mcp,
    /// Whether it is used.
    pub enabled: bool,
}

/// How an integration is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Plain JSON over HTTP.
    Rest,
    /// FHIR R4.
    Fhir,
    /// Model Context Protocol.
    Mcp,
}

impl Protocol {
    /// Its name in the database and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Fhir => "fhir",
            Self::Mcp => "mcp",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Rest, Self::Fhir, Self::Mcp].into_iter().find(|protocol| protocol.name() == name)
    }
}

/// The kinds of `AuthConfig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthKind {
    /// A key in a header.
    ApiKeyHeader,
    /// A fixed token.
    BearerToken,
    /// A client's id and secret for a token.
    #[serde(rename = "oauth2_client_credentials")]
    ClientCredentials,
    /// A signed statement for a token.
    #[serde(rename = "oauth2_jwt_bearer")]
    JwtBearer,
    /// A signed statement for a token of Google's.
    GcpWif,
    /// A signed client assertion for a token of an EHR's.
    SmartBackendServices,
}

/// How a client authenticates with its secret (RFC 6749 section 2.3.1; the names are those of RFC 7591 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMethod {
    /// In HTTP Basic.
    ClientSecretBasic,
    /// In the form.
    ClientSecretPost,
}

/// The contract's `AuthConfig`: what is not secret, and references to what is. Without those fields that are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthConfig {
    /// Which kind it is.
    #[serde(rename = "type")]
    pub kind: AuthKind,
    /// The header of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_name: Option<String>,
    /// The client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Where tokens are had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// Where the client's id and secret stand in a token request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth_method: Option<ClientAuthMethod>,
    /// What is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// What is asked of Google.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcp_scopes: Option<Vec<String>>,
    /// How long a token lives whose answer does not say, seconds.
    #[serde(default = "an_hour")]
    pub token_lifetime_seconds: i64,
    /// `RS384` or `ES384`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion_algorithm: Option<String>,
    /// `aud` of a statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion_audience: Option<String>,
    /// `iss` of a statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion_issuer: Option<String>,
    /// `sub` of a statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion_subject: Option<String>,
    /// `kid` of a statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion_kid: Option<String>,
    /// Whether the scopes stand in the statement.
    #[serde(default)]
    pub assertion_scopes_in_jwt: bool,
    /// The reference to the key of a header. The four names are the platform's; what they hold is Ward's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssm_param_path: Option<String>,
    /// The reference to a fixed token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ssm_param_path: Option<String>,
    /// The reference to a client's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_ssm_param_path: Option<String>,
    /// The reference to a private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_ssm_param_path: Option<String>,
}

const fn an_hour() -> i64 {
    3600
}

/// The contract's `EndpointConfig`, its authentication as `A`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint<A> {
    /// Its name, unique in the integration.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The path below the base URL, with `{placeholders}`.
    pub path: String,
    /// The method.
    pub method: String,
    /// A base URL of its own.
    pub base_url: Option<String>,
    /// Whether a path parameter may hold a slash, a backslash or a dot segment.
    #[serde(default)]
    pub allow_reserved: bool,
    /// Credentials of its own.
    pub auth: Option<A>,
    /// Headers.
    pub headers: Map<String, Value>,
    /// Its parameters, a JSON Schema. Only parameters that this or the path names are sent; the rest is for callers.
    pub input_schema: Value,
    /// `json` or `form`.
    pub body_format: String,
    /// Ways to the values to keep.
    pub response_filter: Option<Vec<String>>,
    /// New names, and ways to their values.
    pub response_mapping: Option<Map<String, Value>>,
    /// The way to the result.
    pub result_key: Option<String>,
    /// A text around the result.
    pub result_template: Option<String>,
    /// `interrupt` or `queue`: the voice agent's business.
    pub result_delivery: String,
    /// The longest result, characters; 0 for no bound.
    pub max_result_length: i64,
    /// When it is tried again.
    pub retry_config: Retry,
}

impl<A> Endpoint<A> {
    /// The names of the parameters that its schema declares.
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

    /// The same with other credentials.
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

/// The base URL of an endpoint's own; an empty one is none.
fn own_base_url<A>(endpoint: &Endpoint<A>) -> Option<&str> {
    endpoint.base_url.as_deref().filter(|url| !url.is_empty())
}

/// When a call is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// How often.
    pub max_retries: u32,
    /// After which statuses.
    pub retry_on_status: Vec<u16>,
}

/// The fields of a tool server. Nothing here runs them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mcp {
    /// `stdio`, `sse` or `http`.
    pub mcp_transport: Option<String>,
    /// Where it is.
    pub mcp_url: Option<String>,
    /// What would start it.
    pub mcp_command: Option<String>,
    /// With which arguments.
    pub mcp_args: Option<Vec<String>>,
    /// With which headers it would be called.
    pub mcp_headers: Option<Map<String, Value>>,
}

/// Inserts the connector's default integration if the workspace has none of its name. `true`: it was inserted.
pub fn seed(tx: &mut Tx<'_>, workspace: WorkspaceId, connector: &str, now: Timestamp) -> Result<bool, Error> {
    let Some(config) = connectors::default_of(connector) else {
        return Err(Error::unreadable("a connector that is not in the table"));
    };
    if store::exists(tx, workspace, connector)? {
        return Ok(false);
    }
    let position = workspaces::next_position(tx, workspace, now)?;
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
    let bytes = store::weigh(tx, workspace, seeded.id)?;
    quotas::give_back(tx, workspace, Change { bytes, integrations: 1, ..Change::default() })?;
    Ok(true)
}

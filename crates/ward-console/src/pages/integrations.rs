//! Integrations: the list with its health, and one integration with its form, its test and its endpoints.

use askama::Template;
use axum::extract::Path;
use futures_util::future::try_join;
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::address::{after, segment};
use crate::form::{Fields, Form, Problems};
use crate::frame::{Frame, List};
use crate::time::Time;
use crate::visit::{Page, Post, Stop, Visit, page, page_of_form};
use crate::words;

/// One field of a kind of authentication: its name in the API, its label and its hint.
pub type Input = (&'static str, &'static str, &'static str);

/// A kind of authentication, as its form shows it.
pub struct Kind {
    pub name: &'static str,
    pub label: &'static str,
    /// The steps of a person at the vendor.
    pub at_vendor: &'static str,
    pub inputs: &'static [Input],
    /// The name of the secret in the API, without its ending, its label, and the field that refers to a stored one.
    pub secret: (&'static str, &'static str, &'static str),
    /// Whether the secret has several lines.
    pub long: bool,
}

const CLIENT: Input = ("client_id", "Client id", "The vendor shows it after the registration.");
const TOKEN_URL: Input =
    ("token_url", "Token URL", "Where access tokens come from. FHIR servers say it themselves.");
const SCOPES: Input = ("scopes", "Scopes", "Separated by spaces.");
const KEY_ID: Input = ("assertion_kid", "Key id", "The id of the key in the key set that the vendor knows.");
const ALGORITHM: Input = ("assertion_algorithm", "Algorithm", "RS384 or ES384.");
const PRIVATE_KEY: (&str, &str, &str) =
    ("private_key_value", "Private key (PEM)", "private_key_ssm_param_path");

/// Every kind of authentication of the API.
pub const KINDS: [Kind; 6] = [
    Kind {
        name: "smart_backend_services",
        label: "SMART backend services",
        at_vendor: "Register a backend app with the public half of the key below. The vendor gives you a client id.",
        inputs: &[CLIENT, TOKEN_URL, SCOPES, KEY_ID, ALGORITHM],
        secret: PRIVATE_KEY,
        long: true,
    },
    Kind {
        name: "bearer_token",
        label: "Bearer token",
        at_vendor: "Create an access token, such as a private app's, with the rights to write calls.",
        inputs: &[],
        secret: ("bearer_token_value", "Token", "token_ssm_param_path"),
        long: false,
    },
    Kind {
        name: "oauth2_client_credentials",
        label: "OAuth 2 client credentials",
        at_vendor: "Register an app for access without a person. The vendor gives you a client id and a client secret.",
        inputs: &[CLIENT, TOKEN_URL, SCOPES],
        secret: ("client_secret_value", "Client secret", "client_secret_ssm_param_path"),
        long: false,
    },
    Kind {
        name: "api_key_header",
        label: "API key in a header",
        at_vendor: "Create an API key.",
        inputs: &[("header_name", "Header", "Such as x-api-key.")],
        secret: ("api_key_value", "API key", "ssm_param_path"),
        long: false,
    },
    Kind {
        name: "oauth2_jwt_bearer",
        label: "OAuth 2 JWT bearer",
        at_vendor: "Register the public half of the key below, with the issuer and subject that the vendor asks for.",
        inputs: &[
            TOKEN_URL,
            ("assertion_issuer", "Issuer", ""),
            ("assertion_subject", "Subject", ""),
            ("assertion_audience", "Audience", ""),
            SCOPES,
            KEY_ID,
        ],
        secret: PRIVATE_KEY,
        long: true,
    },
    Kind {
        name: "gcp_wif",
        label: "Google workload identity",
        at_vendor: "Create a workload identity pool whose provider trusts the public half of the key below.",
        inputs: &[
            TOKEN_URL,
            ("assertion_issuer", "Issuer", ""),
            ("assertion_subject", "Subject", ""),
            ("assertion_audience", "Provider", "It begins with //iam.googleapis.com/projects/."),
            ("gcp_scopes", "Scopes", "Separated by spaces."),
            KEY_ID,
        ],
        secret: PRIVATE_KEY,
        long: true,
    },
];

#[derive(Deserialize)]
struct Integration {
    id: String,
    name: String,
    display_name: String,
    protocol: String,
    enabled: bool,
    #[serde(default)]
    builtin: bool,
    #[serde(default)]
    base_url: String,
    auth: Option<Map<String, Value>>,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    #[serde(default)]
    last_tested_at: Time,
    last_test_status: Option<String>,
}

#[derive(Deserialize)]
struct Endpoint {
    name: String,
    description: String,
    path: String,
    #[serde(default)]
    method: String,
}

impl Integration {
    fn status(&self) -> &str {
        self.last_test_status.as_deref().unwrap_or_default()
    }

    fn health(&self) -> &'static str {
        words::health(self.status())
    }

    fn kind(&self) -> Option<&'static Kind> {
        let name = self.auth.as_ref()?.get("type")?.as_str()?;
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// A field of the authentication as a form shows it.
    fn shown(&self, name: &str) -> String {
        match self.auth.as_ref().and_then(|auth| auth.get(name)) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            _ => String::new(),
        }
    }

    /// Whether the secret of this kind is stored.
    fn has_secret(&self, kind: &Kind) -> bool {
        !self.shown(kind.secret.2).is_empty()
    }
}

#[derive(Template)]
#[template(path = "integrations.html")]
struct ListPage {
    frame: Frame,
    list: List<Integration>,
}

fn path(workspace: &str, rest: &str) -> String {
    format!("/v1/{}/integrations{rest}", segment(workspace))
}

pub async fn list(Path(workspace): Path<String>, visit: Visit) -> Page {
    let at = path(&workspace, &format!("?limit=20&continuation_token={}", after(&visit)));
    let (room, list) = try_join(visit.room(&workspace), visit.get(&at)).await?;
    page(&ListPage { frame: visit.frame("Integrations").within(room, "/integrations"), list })
}

#[derive(Template)]
#[template(path = "integration_new.html")]
struct NewPage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
}

pub async fn new(Path(workspace): Path<String>, visit: Visit) -> Page {
    let form = visit.form();
    show_new(&workspace, &visit, form).await
}

async fn show_new(workspace: &str, visit: &Visit, form: Form) -> Page {
    let frame = visit.frame("New integration").within(visit.room(workspace).await?, "/integrations");
    let above = form.above(&["name", "display_name", "protocol", "base_url"]);
    page_of_form(&form.clone(), &NewPage { frame, form, above })
}

pub async fn create(Path(workspace): Path<String>, Post { visit, fields }: Post) -> Page {
    let body = json!({
        "name": fields.get("name"),
        "display_name": fields.get("display_name"),
        "protocol": fields.get("protocol"),
        "base_url": fields.get("base_url"),
        "enabled": false,
    });
    match visit.send::<Integration>(Method::POST, &path(&workspace, ""), Some(body), &fields).await? {
        Ok(made) => visit.go(&format!("/w/{workspace}/integrations/{}?done=created", made.id)),
        Err(problems) => show_new(&workspace, &visit, visit.form_again(fields, problems)).await,
    }
}

/// The result of a test, step by step.
#[derive(Default)]
struct Outcome {
    title: String,
    tone: &'static str,
    steps: Vec<(&'static str, String)>,
}

#[derive(Template)]
#[template(path = "integration.html")]
struct OnePage {
    frame: Frame,
    form: Form,
    above: Vec<String>,
    one: Integration,
    kind: Option<&'static Kind>,
    kinds: &'static [Kind],
    outcome: Option<Outcome>,
}

impl OnePage {
    /// The HTML of one field of the authentication.
    fn input(&self, input: &Input) -> String {
        let (name, label, hint) = input;
        self.form.text(&format!("auth.{name}"), label).hint(hint).to_string()
    }

    fn secret(&self, kind: &Kind) -> String {
        let (name, label, _) = kind.secret;
        let name = format!("auth.{name}");
        let field =
            if kind.long { self.form.secret_area(&name, label) } else { self.form.secret(&name, label) };
        let hint = if self.one.has_secret(kind) {
            "A secret is stored, sealed. Leave this empty to keep it."
        } else {
            "It is stored sealed, and cannot be read again."
        };
        field.hint(hint).to_string()
    }
}

pub async fn show(Path((workspace, id)): Path<(String, String)>, visit: Visit) -> Page {
    show_one(&workspace, &id, &visit, None, None).await
}

async fn show_one(
    workspace: &str,
    id: &str,
    visit: &Visit,
    sent: Option<(Fields, Problems)>,
    outcome: Option<Outcome>,
) -> Page {
    let at = path(workspace, &format!("/{}", segment(id)));
    let (room, one) = try_join(visit.room(workspace), visit.get::<Integration>(&at)).await?;
    let chosen = visit.query.get("auth");
    let kind =
        KINDS.iter().find(|kind| kind.name == chosen).or_else(|| one.kind().filter(|_| chosen.is_empty()));
    let mut form = visit.form();
    if let Some((fields, problems)) = sent {
        form = visit.form_again(fields, problems);
    } else {
        let mut fields = Fields::default()
            .with("display_name", one.display_name.clone())
            .with("base_url", one.base_url.clone());
        if one.enabled {
            fields = fields.with("enabled", "yes");
        }
        for (name, ..) in kind.map(|kind| kind.inputs).unwrap_or_default() {
            fields = fields.with(&format!("auth.{name}"), one.shown(name));
        }
        form.fields = fields;
    }
    let mut shown = vec!["display_name".to_owned(), "base_url".to_owned(), "enabled".to_owned()];
    if let Some(kind) = kind {
        shown.extend(kind.inputs.iter().map(|(name, ..)| format!("auth.{name}")));
        shown.push(format!("auth.{}", kind.secret.0));
    }
    let above = form.above(&shown.iter().map(String::as_str).collect::<Vec<_>>());
    let frame = visit.frame(&one.display_name).within(room, "/integrations");
    page_of_form(&form.clone(), &OnePage { frame, form, above, one, kind, kinds: &KINDS, outcome })
}

/// The authentication that a form describes: that of the integration, with the form's fields and secrets.
fn auth_of(one: &Integration, kind: &Kind, fields: &Fields) -> Value {
    let same = one.kind().is_some_and(|known| known.name == kind.name);
    let mut auth = one.auth.clone().filter(|_| same).unwrap_or_default();
    auth.insert("type".to_owned(), json!(kind.name));
    for (name, ..) in kind.inputs {
        let given = fields.get(&format!("auth.{name}"));
        let value = match (given.is_empty(), name.ends_with("scopes")) {
            (true, _) => Value::Null,
            (false, true) => {
                json!(given.split([' ', ',', '\n']).filter(|one| !one.is_empty()).collect::<Vec<_>>())
            }
            (false, false) => json!(given),
        };
        auth.insert((*name).to_owned(), value);
    }
    let (secret, _, reference) = kind.secret;
    let given = fields.whole(&format!("auth.{secret}"));
    if !given.trim().is_empty() {
        auth.remove(reference);
        // Browsers send line ends of a text area as CR LF.
        auth.insert(secret.to_owned(), json!({ "value": given.replace("\r\n", "\n") }));
    }
    Value::Object(auth)
}

pub async fn save(Path((workspace, id)): Path<(String, String)>, Post { visit, fields }: Post) -> Page {
    let at = path(&workspace, &format!("/{}", segment(&id)));
    let one: Integration = visit.get(&at).await?;
    let mut body = json!({
        "display_name": fields.get("display_name"),
        "base_url": fields.get("base_url"),
        "enabled": fields.get("enabled") == "yes",
    });
    if let Some(kind) = KINDS.iter().find(|kind| kind.name == fields.get("auth_kind")) {
        body["auth"] = auth_of(&one, kind, &fields);
    }
    match visit.send::<Value>(Method::PUT, &at, Some(body), &fields).await? {
        Ok(_) => visit.go(&format!("/w/{workspace}/integrations/{id}?done=saved")),
        Err(problems) => show_one(&workspace, &id, &visit, Some((fields, problems)), None).await,
    }
}

#[derive(Deserialize)]
struct Connection {
    status: String,
    message: String,
    detail: Option<String>,
    duration_ms: f64,
    http_status: Option<i64>,
}

pub async fn test(Path((workspace, id)): Path<(String, String)>, Post { visit, fields }: Post) -> Page {
    let at = path(&workspace, &format!("/{}/test-connection", segment(&id)));
    let said = visit.send::<Connection>(Method::POST, &at, None, &fields).await?;
    let outcome = match said {
        Ok(said) => Outcome {
            title: format!("Connection: {}", words::health(&said.status)),
            tone: words::tone(&said.status),
            steps: vec![
                ("Result", said.message),
                ("Detail", said.detail.unwrap_or_default()),
                ("HTTP status", said.http_status.map(|status| status.to_string()).unwrap_or_default()),
                ("Time", format!("{:.0} ms", said.duration_ms)),
            ],
        },
        Err(problems) => refused(&problems),
    };
    show_one(&workspace, &id, &visit, None, Some(outcome)).await
}

fn refused(problems: &Problems) -> Outcome {
    Outcome {
        title: "The test was refused".to_owned(),
        tone: "bad",
        steps: vec![("Why", problems.sentences().join(" "))],
    }
}

#[derive(Deserialize)]
struct EndpointTestResult {
    status_code: Option<i64>,
    error: Option<String>,
    #[serde(default)]
    raw_response: Value,
    #[serde(default)]
    after_filter: Value,
    #[serde(default)]
    after_mapping: Value,
    final_result: Option<String>,
    duration_ms: Option<f64>,
}

fn indented(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

pub async fn test_endpoint(
    Path((workspace, id, endpoint)): Path<(String, String, String)>,
    Post { visit, fields }: Post,
) -> Page {
    let at = path(&workspace, &format!("/{}/endpoints/{}/test", segment(&id), segment(&endpoint)));
    let said =
        visit.send::<EndpointTestResult>(Method::POST, &at, Some(json!({ "params": {} })), &fields).await?;
    let outcome = match said {
        Ok(said) => Outcome {
            title: format!("Endpoint {endpoint}"),
            tone: if said.error.is_some() { "bad" } else { "good" },
            steps: vec![
                ("Error", said.error.unwrap_or_default()),
                ("HTTP status", said.status_code.map(|status| status.to_string()).unwrap_or_default()),
                ("Answer", indented(&said.raw_response)),
                ("After the filter", indented(&said.after_filter)),
                ("After the mapping", indented(&said.after_mapping)),
                ("Result", said.final_result.unwrap_or_default()),
                ("Time", said.duration_ms.map(|time| format!("{time:.0} ms")).unwrap_or_default()),
            ],
        },
        Err(problems) => refused(&problems),
    };
    show_one(&workspace, &id, &visit, None, Some(outcome)).await
}

pub async fn delete(Path((workspace, id)): Path<(String, String)>, Post { visit, fields }: Post) -> Page {
    let at = path(&workspace, &format!("/{}", segment(&id)));
    let name = name_of(&visit, &at).await?;
    if fields.get("confirm") != name {
        let problems = Problems::at_field("confirm", "This is not the name of the integration.");
        return Err(visit.refused(problems));
    }
    match visit.send::<Value>(Method::DELETE, &at, None, &fields).await? {
        Ok(_) => visit.go(&format!("/w/{workspace}/integrations?done=deleted")),
        Err(problems) => Err(visit.refused(problems)),
    }
}

async fn name_of(visit: &Visit, at: &str) -> Result<String, Stop> {
    Ok(visit.get::<Integration>(at).await?.name)
}

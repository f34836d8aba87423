//! The value rules of integrations. A schema gives the type of a URL; the rules here give its content.

use serde_json::{Map, Value};
use strum::VariantArray as _;
use url::Url;
use ward_contract::RuleProblem;
use ward_contract::validate::Loc;

use super::AuthKind;
use super::outbound;
use super::secrets::SecretKind;
use crate::text;

/// The longest name of an integration or endpoint, and the longest value of a header.
const LONGEST_NAME: usize = 64;
const LONGEST_HEADER: usize = 4096;
/// The most retries of a call, because all attempts share one time limit.
const MOST_RETRIES: i64 = 5;
/// The most private keys that one request may have.
const MOST_KEYS: usize = 8;
/// The most paths in a filter or mapping, and the most opening braces in a template.
const MOST_WAYS: usize = 100;

fn problem(at: &[&'static str], message: &str) -> RuleProblem {
    RuleProblem { at: at.iter().map(|step| Loc::from(*step)).collect(), message: message.to_owned() }
}

fn verdict(wrong: Option<&str>) -> Vec<RuleProblem> {
    wrong.map(RuleProblem::here).into_iter().collect()
}

/// The name of an integration or endpoint, which URLs contain.
pub fn name(value: &Value) -> Vec<RuleProblem> {
    let name = value.as_str().unwrap_or_default();
    let starts = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let plain = name.chars().all(|char| char.is_ascii_alphanumeric() || char == '-' || char == '_');
    let fine = starts && plain && name.len() <= LONGEST_NAME;
    verdict((!fine).then_some("a name is 1 to 64 letters, digits, - and _, the first a letter or digit"))
}

/// A base URL. It may be empty or have `{placeholders}` for parts that are not known yet.
pub fn base_url(value: &Value) -> Vec<RuleProblem> {
    let text = value.as_str().unwrap_or_default();
    verdict(if text.is_empty() { None } else { wrong_url(text, false) })
}

/// A token URL, which may have a query.
pub fn token_url(value: &Value) -> Vec<RuleProblem> {
    verdict(wrong_url(value.as_str().unwrap_or_default(), true))
}

fn wrong_url(text: &str, may_have_query: bool) -> Option<&'static str> {
    const FORM: &str = "must be a URL such as https://ehr.example.com/fhir";
    if text.len() > 2048 {
        return Some("must be at most 2048 characters");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('\\') {
        return Some(FORM);
    }
    let mut known = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once('{') {
        let Some((name, after)) = tail.split_once('}') else {
            return Some("has a brace without its other one");
        };
        if name.is_empty() || !name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') {
            return Some("a placeholder is a name of letters, digits and underscores in braces");
        }
        known.push_str(before);
        known.push('x');
        rest = after;
    }
    known.push_str(rest);
    if known.contains('}') {
        return Some("has a brace without its other one");
    }
    let Ok(url) = Url::parse(&known) else { return Some(FORM) };
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Some("must be an https URL");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("must not hold a user or a password: they belong in auth");
    }
    if url.fragment().is_some() || (!may_have_query && url.query().is_some()) {
        return Some("must end with its path");
    }
    let after_scheme = known.split_once("://").map_or("", |(_, rest)| rest);
    let sent = after_scheme.find('/').map_or("/", |at| &after_scheme[at..]);
    let as_it_stands = sent.split('?').next() == Some(url.path());
    (!as_it_stands).then_some("must not have . or .. as a step of its path")
}

/// Checks a header that a configuration sets.
fn wrong_header(name: &str, value: &str) -> Option<&'static str> {
    if !outbound::is_header_name(name) {
        return Some("is not a header's name");
    }
    if outbound::is_reserved_header(name) {
        return Some("cannot be set here: it belongs to the connection or to auth");
    }
    if text::has_stray_end(value) {
        return Some(STRAY);
    }
    let printable = value.bytes().all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte));
    (!printable || value.len() > LONGEST_HEADER).then_some("must be at most 4096 printable ASCII characters")
}

/// Judges the `headers` of an endpoint: names, values, and their size together.
pub fn headers(value: &Value) -> Vec<RuleProblem> {
    let wrong = |(name, value): (&String, &Value)| {
        let message = wrong_header(name, value.as_str().unwrap_or_default())?;
        Some(RuleProblem { at: vec![Loc::from(name.clone())], message: message.to_owned() })
    };
    let headers = value.as_object();
    let length = |(name, value): (&String, &Value)| name.len() + value.as_str().map_or(0, str::len);
    if headers.into_iter().flatten().map(length).sum::<usize>() > outbound::MOST_HEADER_BYTES {
        return vec![RuleProblem::here("must be at most 8,192 bytes together, names and values")];
    }
    headers.into_iter().flatten().filter_map(wrong).collect()
}

/// Headers that the platform sends to an MCP server, keys among them.
pub fn mcp_headers(value: &Value) -> Vec<RuleProblem> {
    let copied = |(name, value): (&String, &Value)| {
        let stray = text::has_stray_end(name) || value.as_str().is_some_and(text::has_stray_end);
        stray.then(|| RuleProblem { at: vec![Loc::from(name.clone())], message: STRAY.to_owned() })
    };
    value.as_object().into_iter().flatten().filter_map(copied).collect()
}

/// The path of an endpoint, with its placeholders.
pub fn path(value: &Value) -> Vec<RuleProblem> {
    verdict(outbound::check_path(value.as_str().unwrap_or_default()).err())
}

/// The problem with the paths of one field, if there is one.
fn wrong_ways<'v>(ways: impl Iterator<Item = &'v Value>) -> Option<&'static str> {
    let mut count = 0;
    for way in ways {
        count += 1;
        if !outbound::is_way(way.as_str().unwrap_or_default()) {
            return Some(
                "a path is 1 to 32 names separated by dots, none of them empty, and at most 256 characters",
            );
        }
    }
    (count > MOST_WAYS).then_some("must be at most 100")
}

/// How an endpoint processes its answer.
fn shape(endpoint: &Value) -> Vec<RuleProblem> {
    let filter = endpoint["response_filter"].as_array().into_iter().flatten();
    let mapping = endpoint["response_mapping"].as_object().into_iter().flatten().map(|(_, way)| way);
    let key = Some(&endpoint["result_key"]).filter(|key| !key.is_null());
    let braces = endpoint["result_template"].as_str().unwrap_or_default().matches('{').count();
    [
        ("response_filter", wrong_ways(filter)),
        ("response_mapping", wrong_ways(mapping)),
        ("result_key", wrong_ways(key.into_iter())),
        ("result_template", (braces > MOST_WAYS).then_some("must have at most 100 opening braces")),
    ]
    .into_iter()
    .filter_map(|(field, wrong)| wrong.map(|message| problem(&[field], message)))
    .collect()
}

/// The retries and result length of an endpoint, and the paths to its result.
pub fn endpoint(value: &Value) -> Vec<RuleProblem> {
    let retry = &value["retry_config"];
    let mut problems = Vec::new();
    if !(0..=MOST_RETRIES).contains(&retry["max_retries"].as_i64().unwrap_or(-1)) {
        problems.push(problem(&["retry_config", "max_retries"], "must be 0 to 5"));
    }
    let statuses = retry["retry_on_status"].as_array();
    if statuses
        .into_iter()
        .flatten()
        .any(|status| !status.as_i64().is_some_and(|it| (400..600).contains(&it)))
    {
        problems.push(problem(&["retry_config", "retry_on_status"], "must be statuses from 400 to 599"));
    }
    if value["max_result_length"].as_i64().is_none_or(|length| !(0..=1_000_000).contains(&length)) {
        problems.push(problem(&["max_result_length"], "must be 0 to 1,000,000; 0 means no bound"));
    }
    problems.extend(shape(value));
    problems
}

/// All endpoints together: their names must be unique, because calls and secrets refer to them.
pub fn endpoints(value: &Value) -> Vec<RuleProblem> {
    let mut seen: Vec<&str> = Vec::new();
    let mut problems = Vec::new();
    for (index, endpoint) in value.as_array().into_iter().flatten().enumerate() {
        let name = endpoint["name"].as_str().unwrap_or_default();
        if seen.contains(&name) {
            let at = vec![Loc::from(index), Loc::from("name")];
            problems.push(RuleProblem { at, message: "is the name of another endpoint here".to_owned() });
        }
        seen.push(name);
    }
    problems
}

/// The message for a value that was copied together with other text.
const STRAY: &str = "must not begin or end with white space or an invisible character";

/// The fields that identify Ward to the other side; people paste them together with the secret.
const IDENTIFIERS: [&str; 6] = [
    "client_id",
    "header_name",
    "assertion_issuer",
    "assertion_subject",
    "assertion_audience",
    "assertion_kid",
];

/// A secret: not empty, not absurdly long, and without white space from copying around it. A private key
/// may have some around it, because its format shows where it begins and ends.
pub fn secret(value: &Value) -> Vec<RuleProblem> {
    let text = value.as_str().unwrap_or_default();
    let length = text.len();
    if length == 0 || length > 16 * 1024 {
        return verdict(Some("must be 1 to 16,384 bytes"));
    }
    let is_key = text.contains("PRIVATE KEY") || text::pasted(text).starts_with('{');
    verdict((!is_key && text::has_stray_end(text)).then_some(STRAY))
}

/// A whole `AuthConfig`: it has the fields that its type needs, and no secret of another type.
pub fn auth(value: &Value) -> Vec<RuleProblem> {
    let Ok(kind) = serde_json::from_value::<AuthKind>(value["type"].clone()) else { return Vec::new() };
    let given = |field: &str| value[field].as_str().is_some_and(|text| !text.is_empty());
    let mut problems = Vec::new();
    let mut need = |field: &'static str, has: bool| {
        if !has {
            problems.push(problem(&[field], "is required for this type"));
        }
    };
    match kind {
        AuthKind::ApiKeyHeader => need("header_name", given("header_name")),
        AuthKind::BearerToken => {}
        AuthKind::ClientCredentials => {
            need("client_id", given("client_id"));
            need("token_url", given("token_url"));
        }
        AuthKind::JwtBearer => {
            need("token_url", given("token_url"));
            need("assertion_issuer", given("assertion_issuer") || given("client_id"));
        }
        AuthKind::GcpWif => {
            need("assertion_issuer", given("assertion_issuer"));
            need("assertion_subject", given("assertion_subject"));
            let provider = value["assertion_audience"].as_str().unwrap_or_default();
            need("assertion_audience", provider.starts_with("//iam.googleapis.com/"));
        }
        AuthKind::SmartBackendServices => need("client_id", given("client_id")),
    }
    if kind == AuthKind::SmartBackendServices && value["assertion_algorithm"] == "RS256" {
        problems.push(problem(&["assertion_algorithm"], "must be RS384 or ES384 for SMART backend services"));
    }
    for field in IDENTIFIERS {
        if value[field].as_str().is_some_and(text::has_stray_end) {
            problems.push(problem(&[field], STRAY));
        }
    }
    if let Some(name) = value["header_name"].as_str().filter(|name| !text::has_stray_end(name)) {
        let fine = outbound::is_header_name(name)
            && (!outbound::is_reserved_header(name) || name.eq_ignore_ascii_case("authorization"));
        if !fine {
            problems.push(problem(&["header_name"], "is not a header that can carry a key"));
        }
    }
    if !(1..=86_400).contains(&value["token_lifetime_seconds"].as_i64().unwrap_or(3600)) {
        problems.push(problem(&["token_lifetime_seconds"], "must be 1 to 86,400"));
    }
    if kind != AuthKind::ClientCredentials && !value["client_auth_method"].is_null() {
        problems.push(problem(&["client_auth_method"], "is not used by this type"));
    }
    let used = SecretKind::of(kind);
    for &other in SecretKind::VARIANTS.iter().filter(|other| **other != used) {
        for field in [value_field(other), other.reference_field()] {
            if !value[field].is_null() {
                problems.push(problem(&[field], "is not used by this type"));
            }
        }
    }
    problems.extend(unusable_secret(kind, value));
    problems
}

/// The private keys of a request, which are the last thing that is judged: each is parsed and signs once, and that costs
/// milliseconds. So they are few, and nothing else is wrong with the request by then.
pub fn private_keys(value: &Value) -> Vec<RuleProblem> {
    let own = std::iter::once((Vec::new(), &value["auth"]));
    let of_endpoints = value["endpoints"].as_array().into_iter().flatten().enumerate();
    let of_endpoints = of_endpoints
        .map(|(index, endpoint)| (vec![Loc::from("endpoints"), Loc::from(index)], &endpoint["auth"]));
    let given = own.chain(of_endpoints).filter_map(|(mut at, auth)| {
        let kind = serde_json::from_value::<AuthKind>(auth["type"].clone()).ok()?;
        let text = auth["private_key_value"]["value"].as_str()?;
        at.extend(["auth", "private_key_value", "value"].map(Loc::from));
        Some((at, kind, auth["assertion_algorithm"].as_str(), text))
    });
    let judged = given.take(MOST_KEYS + 1).enumerate().filter_map(|(count, (at, kind, algorithm, text))| {
        let message = if count < MOST_KEYS {
            outbound::check_key(kind, algorithm, text).err()?
        } else {
            "is one private key too many: a request has at most 8".to_owned()
        };
        Some(RuleProblem { at, message })
    });
    judged.collect()
}

const fn value_field(kind: SecretKind) -> &'static str {
    match kind {
        SecretKind::ApiKey => "api_key_value",
        SecretKind::BearerToken => "bearer_token_value",
        SecretKind::ClientSecret => "client_secret_value",
        SecretKind::PrivateKey => "private_key_value",
    }
}

/// A given secret that the other side cannot have issued: found now rather than at the first call.
fn unusable_secret(kind: AuthKind, value: &Value) -> Option<RuleProblem> {
    let used = SecretKind::of(kind);
    let field = value_field(used);
    let secret = value[field]["value"].as_str()?;
    let printable = secret.bytes().all(|byte| (b' '..0x7f).contains(&byte));
    let message = match used {
        SecretKind::ApiKey | SecretKind::BearerToken if !printable => {
            "must be printable ASCII: it is sent in a header"
        }
        // The rule of every secret is about its ends.
        SecretKind::ClientSecret if !text::has_stray_end(secret) && text::first_unseen(secret).is_some() => {
            "must not contain a line break or an invisible character"
        }
        _ => return None,
    };
    Some(RuleProblem { at: vec![Loc::from(field), Loc::from("value")], message: message.to_owned() })
}

/// The parameters of a test call, whose type the schema has already checked.
pub(super) fn params(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

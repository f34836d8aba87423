//! `[[issuers]]`: the issuers whose access tokens Ward accepts, and the claims that Ward reads.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::value::{ParseResult, duration, show_duration};
use crate::text::pasted;

/// Bounds the list, because every token check walks it.
const MOST_ISSUERS: usize = 32;
const REFRESH: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_hours(24);
const OUTAGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24 * 30);

/// A signature algorithm that an issuer may use (RFC 7518, section 3.1; RFC 8037). Symmetric ones are left
/// out, because a party that can verify such a token can also forge one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl TokenAlgorithm {
    pub const ALL: [Self; 3] = [Self::RS256, Self::ES256, Self::EdDsa];
}

/// An `OpenID` Connect issuer whose access tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The issuer identifier, character for character as it stands in `iss`.
    pub issuer: String,
    /// The accepted audiences; `aud` must name at least one of them.
    pub audiences: Vec<String>,
    /// The claim that names the token's client. In a token without `aud`, it must name one of `audiences`.
    /// `None`: a token without `aud` is refused.
    pub client_id_claim: Option<String>,
    /// The claim that names the subject.
    pub subject_claim: String,
    /// The claim with the person's name.
    pub name_claim: String,
    /// The claim and value that mark a machine's token. `None`: the rules of [`crate::identity::token`]
    /// apply.
    pub machine: Option<(String, Value)>,
    /// The algorithms that the issuer's tokens may use.
    pub algorithms: Vec<TokenAlgorithm>,
    /// Whether hosts other than the loopback may be fetched over http without TLS.
    pub allow_http: bool,
    /// The age at which the keys are fetched again.
    pub refresh: Duration,
    /// How long keys stay usable while the issuer cannot be reached, counted from the last successful
    /// fetch.
    pub outage: Duration,
}

impl IssuerConfig {
    /// An issuer with the default claims, algorithms and times.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audiences: vec![audience.into()],
            client_id_claim: None,
            subject_claim: "sub".to_owned(),
            name_claim: "name".to_owned(),
            machine: None,
            algorithms: TokenAlgorithm::ALL.to_vec(),
            allow_http: false,
            refresh: Duration::from_mins(10),
            outage: Duration::from_hours(24),
        }
    }

    /// Whether this URL may be fetched: `https`, or `http` on the loopback or where the operator has allowed it.
    pub fn may_fetch(&self, url: &str) -> bool {
        let Ok(uri) = url.parse::<http::Uri>() else { return false };
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let loopback =
            bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        match uri.scheme_str() {
            Some("https") => !host.is_empty(),
            Some("http") => loopback || (self.allow_http && !host.is_empty()),
            _ => false,
        }
    }
}

/// A text, or a list of texts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// An entry in the form of the setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerEntry {
    issuer: String,
    audience: OneOrMore,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id_claim: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject_claim: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name_claim: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine_claim: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine_value: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    algorithms: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allow_http: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outage: Option<String>,
}

/// Reads the JSON list of issuers. The file's `[[issuers]]` become the same JSON. Every problem names its
/// entry and field.
pub(super) fn issuers(text: &str) -> ParseResult<Vec<IssuerConfig>> {
    let entries: Vec<Value> = serde_json::from_str(text).map_err(|_| {
        "must be a JSON list, such as [{\"issuer\": \"https://id.example.com\", \"audience\": \"ward\"}]"
            .to_owned()
    })?;
    if entries.len() > MOST_ISSUERS {
        return Err(format!("has more than {MOST_ISSUERS} issuers"));
    }
    let mut problems = Vec::new();
    let mut read = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        match one(entry) {
            Ok(issuer) => read.push(issuer),
            Err(why) => problems.push(format!("issuer {}: {why}", index + 1)),
        }
    }
    let mut seen = HashSet::new();
    if let Some(twice) = read.iter().find(|entry| !seen.insert(entry.issuer.as_str())) {
        problems.push(format!("names {} twice", twice.issuer));
    }
    if problems.is_empty() { Ok(read) } else { Err(format!("is wrong: {}", problems.join("; "))) }
}

fn one(entry: Value) -> ParseResult<IssuerConfig> {
    let written: IssuerEntry = serde_json::from_value(entry).map_err(|error| error.to_string())?;
    let audiences = match written.audience {
        OneOrMore::One(one) => vec![one],
        OneOrMore::More(more) => more,
    };
    // A space that was pasted along would make an identifier that no token has.
    let meant = |text: String| pasted(&text).to_owned();
    let audiences: Vec<String> = audiences.into_iter().map(meant).collect();
    // Without an audience, a token made for any other service of the same issuer would be accepted.
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        return Err("audience must be a text or a list of texts, none of them empty".to_owned());
    }
    let mut issuer = IssuerConfig { audiences, ..IssuerConfig::new(meant(written.issuer), "") };
    issuer.allow_http = written.allow_http.unwrap_or_default();
    // OpenID Connect Discovery 1.0, section 4.1: a URL without query or fragment.
    let plain = issuer.issuer.parse::<http::Uri>().is_ok_and(|uri| uri.query().is_none());
    if !plain || issuer.issuer.contains(['#', '@', '?']) || !issuer.may_fetch(&issuer.issuer) {
        return Err(
            "issuer must be an https URL without user, query or fragment (http on the loopback, or with \
                    allow_http = true)"
                .to_owned(),
        );
    }
    let client_id_claim = written.client_id_claim.map(meant);
    if client_id_claim.as_deref() == Some("") {
        return Err("client_id_claim must not be empty".to_owned());
    }
    issuer.client_id_claim = client_id_claim;
    for (field, claim, place) in [
        ("subject_claim", written.subject_claim, &mut issuer.subject_claim),
        ("name_claim", written.name_claim, &mut issuer.name_claim),
    ] {
        match claim.map(meant) {
            Some(claim) if claim.is_empty() => return Err(format!("{field} must not be empty")),
            Some(claim) => *place = claim,
            None => {}
        }
    }
    issuer.machine = match (written.machine_claim.map(meant), written.machine_value) {
        (Some(claim), Some(value)) if !claim.is_empty() => Some((claim, value)),
        (None, None) => None,
        _ => return Err("machine_claim and machine_value go together".to_owned()),
    };
    if let Some(names) = written.algorithms {
        let known = names.iter().map(|name| serde_json::from_value(Value::from(name.as_str())));
        issuer.algorithms = known.collect::<Result<_, _>>().unwrap_or_default();
        if issuer.algorithms.is_empty() {
            return Err("algorithms must be some of RS256, ES256, EdDSA".to_owned());
        }
    }
    if let Some(text) = written.refresh {
        issuer.refresh = duration(&text, &REFRESH).map_err(|why| format!("refresh {why}"))?;
    }
    if let Some(text) = written.outage {
        issuer.outage = duration(&text, &OUTAGE).map_err(|why| format!("outage {why}"))?;
    }
    if issuer.outage < issuer.refresh {
        return Err("outage must not be shorter than refresh".to_owned());
    }
    Ok(issuer)
}

/// The JSON list that configures these issuers; empty if there are none.
pub(super) fn show_issuers(issuers: &[IssuerConfig]) -> String {
    let written: Vec<IssuerEntry> = issuers
        .iter()
        .map(|it| IssuerEntry {
            issuer: it.issuer.clone(),
            audience: OneOrMore::More(it.audiences.clone()),
            client_id_claim: it.client_id_claim.clone(),
            subject_claim: Some(it.subject_claim.clone()),
            name_claim: Some(it.name_claim.clone()),
            machine_claim: it.machine.as_ref().map(|(claim, _)| claim.clone()),
            machine_value: it.machine.as_ref().map(|(_, value)| value.clone()),
            algorithms: Some(
                it.algorithms
                    .iter()
                    .filter_map(|algorithm| Some(serde_json::to_value(algorithm).ok()?.as_str()?.to_owned()))
                    .collect(),
            ),
            allow_http: Some(it.allow_http),
            refresh: Some(show_duration(it.refresh)),
            outage: Some(show_duration(it.outage)),
        })
        .collect();
    if written.is_empty() { String::new() } else { serde_json::to_string(&written).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back() {
        let given = r#"[{"issuer": "https://id.example.com", "audience": ["a", "b"], "machine_claim": "gty",
                        "machine_value": "client-credentials", "client_id_claim": "client_id", "algorithms": ["EdDSA"], "outage": "2h"}]"#;
        let read = issuers(given).unwrap();
        assert_eq!(read[0].algorithms, [TokenAlgorithm::EdDsa]);
        assert_eq!(read[0].outage, Duration::from_hours(2));
        assert_eq!(issuers(&show_issuers(&read)), Ok(read));
        assert_eq!(show_issuers(&[]), "");
    }

    #[test]
    fn each_mistake_names_its_entry_and_field() {
        for (given, expected) in [
            ("{}", "must be a JSON list"),
            (r#"[{"audience": "a"}]"#, "issuer 1: missing field `issuer`"),
            (r#"[{"issuer": "https://a"}]"#, "issuer 1: missing field `audience`"),
            (r#"[{"issuer": "https://a", "audience": []}]"#, "audience must be"),
            (r#"[{"issuer": "http://a", "audience": "x"}]"#, "issuer must be an https URL"),
            (r#"[{"issuer": "https://a?b", "audience": "x"}]"#, "issuer must be an https URL"),
            (r#"[{"issuer": "https://a", "audience": "x", "audiense": 1}]"#, "unknown field `audiense`"),
            (r#"[{"issuer": "https://a", "audience": "x", "algorithms": ["HS256"]}]"#, "algorithms must be"),
            (
                r#"[{"issuer": "https://a", "audience": "x", "client_id_claim": ""}]"#,
                "client_id_claim must not",
            ),
            (r#"[{"issuer": "https://a", "audience": "x", "machine_claim": "a"}]"#, "go together"),
            (r#"[{"issuer": "https://a", "audience": "x", "outage": "1m"}]"#, "outage must not be shorter"),
            (
                r#"[{"issuer": "https://a", "audience": "x"}, {"issuer": "https://a", "audience": "y"}]"#,
                "names https://a twice",
            ),
        ] {
            let why = issuers(given).unwrap_err();
            assert!(why.contains(expected), "{given}: {why}");
        }
        issuers(r#"[{"issuer": "http://127.0.0.1:3000", "audience": "x"}]"#).unwrap();
        issuers(r#"[{"issuer": "http://[::1]:3000", "audience": "x"}]"#).unwrap();
        issuers(r#"[{"issuer": "http://id.internal", "audience": "x", "allow_http": true}]"#).unwrap();
    }
}

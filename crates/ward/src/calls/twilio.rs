//! Twilio's status callbacks: form posts that Twilio signs.
//!
//! The signature is a credential: HMAC-SHA-1 under the account's auth token over the URL that Twilio was given and the
//! form's fields (Twilio, "Validating Signatures from Twilio"). The URL is the operator's configured one and never a
//! header's: whoever can choose the URL that is verified can replay what was signed for another.

use std::time::UNIX_EPOCH;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use serde_json::{Map, json};
use ward_db::{Error, Timestamp, Tx};

use super::api::LONGEST_STATUS;
use super::{Caller, Direction, Report, Status, store};
use crate::audit::{self, Actor, Event};
use crate::error::ApiError;
use crate::http::validate::{Json, Problem};
use crate::http::{Call, Context};
use crate::ids::WorkspaceId;
use crate::vault::{Resealed, SealedRow, Vault};
use crate::workspaces::test_callers::NotANumber;

/// Where the signature stands.
pub const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");

/// A form's fields, in the order in which they were sent.
type Form = Vec<(String, String)>;

/// What a callback says, once it is known to be Twilio's.
pub struct Verified {
    /// When the account by which it was verified last changed.
    pub account_changed_at: Timestamp,
    /// The call's sid.
    pub sid: String,
    /// What is reported. `None`: a leg of another call, which is no call of its own.
    pub report: Option<Report>,
}

/// The same refusal for everything that is not a callback of this workspace's account.
pub fn refused() -> ApiError {
    ApiError::forbidden_because("callback_refused", "This callback is not accepted.")
}

/// Where a workspace's token is sealed for.
pub fn token_place(workspace: WorkspaceId) -> String {
    format!("workspace/{workspace}/twilio/auth_token")
}

/// Seals the tokens of up to `most` workspaces after this one anew under the key in force.
pub fn reseal(
    tx: &mut Tx<'_>,
    vault: &Vault,
    after: WorkspaceId,
    most: u32,
) -> Result<Resealed<WorkspaceId>, Error> {
    vault.reseal_rows(sealed_rows(tx, after, most)?, |row, anew| {
        store::replace_twilio_token(tx, row.at, &row.bytes, anew)
    })
}

/// The tokens of up to `most` workspaces after this one, as they are sealed.
pub fn sealed_rows(
    tx: &mut Tx<'_>,
    after: WorkspaceId,
    most: u32,
) -> Result<Vec<SealedRow<WorkspaceId>>, Error> {
    let found = store::twilio_tokens(tx, after, most)?;
    let row = |(workspace, bytes)| SealedRow {
        at: workspace,
        place: token_place(workspace),
        bytes,
        what: format!("the Twilio auth token of workspace {workspace}"),
    };
    Ok(found.into_iter().map(row).collect())
}

/// Forgets an account whose token no key opens any more, for the operator. `false`: it has another token now.
pub fn forget(tx: &mut Tx<'_>, context: &Context, row: &SealedRow<WorkspaceId>) -> Result<bool, ApiError> {
    crate::workspaces::guard(tx, row.at)?;
    if store::twilio(tx, row.at)?.is_none_or(|account| account.auth_token != row.bytes) {
        return Ok(false);
    }
    store::remove_twilio(tx, row.at)?;
    audit::record(
        tx,
        Event {
            workspace: row.at,
            service: "calls",
            action: "twilio.secrets_forgotten",
            resource_type: "twilio_account",
            resource_id: None,
            resource_name: None,
            actor: Actor::OPERATOR,
            context,
            metadata: json!({ "secrets_forgotten": ["auth_token"] }),
        },
    )?;
    Ok(true)
}

/// How many tokens are sealed under another key than the one in force.
pub fn count_under_other_keys(tx: &mut Tx<'_>, vault: &Vault) -> Result<i64, Error> {
    store::count_twilio_under_other_keys(tx, vault.key_mark())
}

/// The URL that Twilio must be given, if the operator has said where Ward is.
pub fn callback_url(public_url: Option<&str>, workspace: WorkspaceId) -> Option<String> {
    public_url.map(|url| format!("{}/v1/{workspace}/twilio/status", url.trim_end_matches('/')))
}

/// Reads and verifies a callback. Whatever is wrong with its credential is one 403, at one cost.
pub async fn verify(call: &mut Call) -> Result<Verified, ApiError> {
    let app = call.app.clone();
    let rate = app.rates.as_ref().map(|rates| &rates.failed_credentials);
    let address = call.context.address;
    if let Some(rate) = rate {
        rate.check(address).map_err(|state| ApiError::too_many(state.reset_seconds))?;
    }
    let outcome = judge(call).await;
    if let Some(rate) = rate
        && matches!(&outcome, Err(error) if error.is_forbidden())
    {
        let _ = rate.charge(address);
    }
    outcome
}

async fn judge(call: &mut Call) -> Result<Verified, ApiError> {
    let body = call.read_ignored_body().await?;
    let form: Form =
        form_urlencoded::parse(&body).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let workspace = call.workspace().ok_or_else(refused)?;
    let account =
        call.app.db.read("calls.twilio_account", move |tx| store::twilio_of_active(tx, workspace)).await?;
    // Without an account there is still something to compare with, so that the time taken tells nothing.
    let token = match &account {
        Some(account) => {
            call.app.vault.open(&account.auth_token, &token_place(workspace)).map_err(ApiError::internal)?
        }
        None => b"no account has this token".to_vec().into(),
    };
    let given = call.header(&SIGNATURE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let given = STANDARD.decode(given).unwrap_or_default();
    let urls = urls(call.app.config.public_url.as_deref(), call.path_and_query());
    let signed = urls.iter().fold(false, |found, url| is_signed(&token, url, &form, &given) | found);
    let field = |name: &str| form.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let account = account.filter(|account| signed && field("AccountSid") == Some(&account.account_sid));
    let account = account.ok_or_else(refused)?;
    let sid =
        field("CallSid").filter(|sid| super::api::is_sid(sid)).ok_or_else(|| lacks("CallSid"))?.to_owned();
    let report = if field("ParentCallSid").is_some_and(|parent| !parent.is_empty()) {
        None
    } else {
        Some(report(&field)?)
    };
    Ok(Verified { account_changed_at: account.updated_at, sid, report })
}

fn lacks(field: &'static str) -> ApiError {
    ApiError::invalid(vec![Problem {
        kind: "missing",
        loc: vec!["body".into(), field.into()],
        msg: "Field required".to_owned(),
        input: Json::Null,
        ctx: None,
    }])
}

/// The URLs that Twilio may have signed: the configured one, and the same with its scheme's port spelled out.
fn urls(public_url: Option<&str>, path_and_query: &str) -> Vec<String> {
    let Some(base) = public_url.map(|url| url.trim_end_matches('/')) else { return Vec::new() };
    let mut urls = vec![format!("{base}{path_and_query}")];
    if let Some((scheme, rest)) = base.split_once("://") {
        let (host, below) =
            rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
        let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
        if let Some(bare) = host.strip_suffix(port) {
            urls.push(format!("{scheme}://{bare}{below}{path_and_query}"));
        } else if !host.rsplit(']').next().unwrap_or_default().contains(':') {
            urls.push(format!("{scheme}://{host}{port}{below}{path_and_query}"));
        }
    }
    urls
}

/// Whether `given` (20 bytes) is the signature over this URL and these names and values, under this auth token. Their
/// order does not matter. Constant time in the signature.
pub fn is_signed(token: &[u8], url: &str, form: &[(String, String)], given: &[u8]) -> bool {
    let mut fields: Vec<&(String, String)> = form.iter().collect();
    fields.sort();
    fields.dedup();
    let mut text = url.to_owned();
    for (name, value) in fields {
        text.push_str(name);
        text.push_str(value);
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token);
    hmac::verify(&key, text.as_bytes(), given).is_ok()
}

/// What the fields report.
fn report<'f>(field: &impl Fn(&str) -> Option<&'f str>) -> Result<Report, ApiError> {
    let told = field("CallStatus").filter(|told| !told.is_empty()).ok_or_else(|| lacks("CallStatus"))?;
    // Twilio tells the length with the end.
    let seconds: Option<i64> = field("CallDuration").and_then(|text| text.parse().ok());
    let duration_ms =
        seconds.filter(|seconds| (0..=864_000).contains(seconds)).map(|seconds| seconds * 1_000);
    let mut details = Map::new();
    let status = Status::named(told).unwrap_or_else(|| {
        super::count_unknown("status");
        let kept: String = told.chars().filter(|c| !c.is_control()).take(LONGEST_STATUS).collect();
        details.insert("status_detail".to_owned(), kept.into());
        Status::told_in_other_words(duration_ms.is_some())
    });
    let completion_reason = match status {
        Status::NoAnswer => Some("no_answer"),
        Status::Canceled => Some("abandoned"),
        Status::Failed => Some("error"),
        _ => None,
    };
    let (caller, callee) = (party(field, "From"), party(field, "To"));
    let mut problems = Vec::new();
    let mut keep = |party: Result<Option<Caller>, Problem>| {
        party.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        })
    };
    let report = Report {
        status,
        caller: keep(caller),
        callee: keep(callee),
        direction: Some(direction(field("Direction"))),
        completion_reason: completion_reason.map(str::to_owned),
        duration_ms,
        started_at: None,
        ended_at: field("Timestamp").and_then(when).filter(|_| status.is_final()),
        service_id: None,
        details,
    };
    if problems.is_empty() { Ok(report) } else { Err(ApiError::invalid(problems)) }
}

/// A party of the call. `None`: the form does not name it.
fn party<'f>(
    field: &impl Fn(&str) -> Option<&'f str>,
    name: &'static str,
) -> Result<Option<Caller>, Problem> {
    let Some(text) = field(name) else { return Ok(None) };
    let refused = |problem: NotANumber| {
        let loc = vec!["body".into(), name.into()];
        Problem::value_error(loc, &problem.to_string(), Json::String(text.to_owned()))
    };
    Caller::from_network(Some(text)).map(Some).map_err(refused)
}

/// Which way a call goes. Trunks have the words of the telephone network's side: a call that originates there comes in.
fn direction(told: Option<&str>) -> Direction {
    match told {
        None | Some("inbound" | "trunking-originating") => Direction::Inbound,
        Some("outbound-api" | "outbound-dial" | "trunking-terminating") => Direction::Outbound,
        Some(other) => {
            super::count_unknown("direction");
            if other.starts_with("outbound") { Direction::Outbound } else { Direction::Inbound }
        }
    }
}

/// The moment of an event. Twilio writes it as mail does (RFC 2822), in UTC, which is HTTP's form but for the zone's name.
fn when(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let text = text.strip_suffix("+0000").map_or_else(|| text.to_owned(), |rest| format!("{rest}GMT"));
    let at = httpdate::parse_http_date(&text).ok()?;
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok().map(Timestamp::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&str, &str)]) -> Form {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The example of Twilio's own documentation.
    #[test]
    fn the_published_signature_is_recognized() {
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        let fields = form(&[
            ("To", "+18005551212"),
            ("CallSid", "CA1234567890ABCDE"),
            ("From", "+14158675309"),
            ("Digits", "1234"),
            ("Caller", "+14158675309"),
        ]);
        let given = STANDARD.decode("RSOYDt4T1cUTdK1PDd93/VVr8B8=").unwrap();
        assert!(is_signed(b"12345", url, &fields, &given));
        assert!(!is_signed(b"12346", url, &fields, &given));
        assert!(!is_signed(b"12345", "https://mycompany.com/myapp.php?foo=1&bar=3", &fields, &given));
        assert!(!is_signed(b"12345", url, &fields[1..], &given));
        assert!(!is_signed(b"12345", url, &fields, &given[1..]));
        assert!(!is_signed(b"12345", url, &fields, &[]));
    }

    #[test]
    fn moments_are_read_as_twilio_writes_them() {
        let moment = "2005-08-15T15:52:01.000000Z".parse().ok();
        assert_eq!(when("Mon, 15 Aug 2005 15:52:01 +0000"), moment);
        assert_eq!(when("Mon, 15 Aug 2005 15:52:01 GMT"), moment);
        for text in ["", "yesterday", "Mon, 15 Aug 2005 15:52:01 +0200", "2005-08-15T15:52:01Z"] {
            assert_eq!(when(text), None, "{text}");
        }
    }

    #[test]
    fn the_schemes_port_may_be_spelled_out_or_not() {
        assert_eq!(
            urls(Some("https://w.example/"), "/x?y"),
            ["https://w.example/x?y", "https://w.example:443/x?y"]
        );
        assert_eq!(
            urls(Some("https://w.example:443"), "/x"),
            ["https://w.example:443/x", "https://w.example/x"]
        );
        assert_eq!(urls(Some("http://[::1]/in"), "/x"), ["http://[::1]/in/x", "http://[::1]:80/in/x"]);
        assert_eq!(urls(Some("http://w.example:8080"), "/x"), ["http://w.example:8080/x"]);
        assert!(urls(None, "/x").is_empty());
    }
}

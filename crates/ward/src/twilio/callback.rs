//! Twilio's status callbacks: form posts that Twilio signs.
//!
//! The signature is a credential: HMAC-SHA-1 under the account's auth token, over the callback URL and the
//! form's fields (Twilio, "Validating Signatures from Twilio"). The URL comes from the
//! operator's settings, never from a header. A party that can choose the verified URL can replay a
//! signature made for another.

use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use serde_json::Map;
use ward_contract::validate::{Json, Problem};
use ward_db::Timestamp;
use zeroize::Zeroizing;

use super::form::Form;
use super::{Account, secondary_token_place, store, token_place};
use crate::calls::patients::Facts;
use crate::calls::told::{self, LONGEST_STATUS};
use crate::calls::{self, CallerId, Direction, Report, Status};
use crate::error::ApiError;
use crate::http::Request;
use crate::ids::WorkspaceId;
use crate::phone::NotANumber;
use crate::vault::Vault;

pub const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");

/// The largest accepted callback, bytes. Twilio's callbacks have a few kilobytes.
const LARGEST: usize = 32 * 1024;

/// The content of a callback with a valid signature.
pub struct VerifiedCallback {
    /// The last change of the account that verified the signature.
    pub account_changed_at: Timestamp,
    /// The provider's id of the call.
    pub sid: String,
    /// The content of the callback, by its kind.
    pub told: CallbackContent,
}

/// The content of a callback with a valid signature, by its kind.
pub enum CallbackContent {
    /// A report of the call that the callback names.
    Report(Box<Report>),
    /// A leg that Twilio dialled on behalf of another call, which is not a call of its own.
    Leg {
        /// The provider's id of that other call.
        parent: String,
        /// The number that was dialled, if it was one.
        callee: Option<String>,
    },
}

/// Reads and verifies a callback. Every fault of its credential gets the same 403, at the same cost.
pub async fn verify(request: &mut Request) -> Result<VerifiedCallback, ApiError> {
    let body = request.read_ignored_body_up_to(LARGEST).await?;
    let form = Form::parse(&body);
    let workspace = request.workspace().ok_or_else(ApiError::callback_refused)?;
    let share = request.look_up_share().await?;
    let account =
        request.app.db.read("calls.twilio_account", move |tx| store::of_active(tx, workspace)).await?;
    let tokens = tokens(&request.app.vault, workspace, account.as_ref())?;
    let given = request.only_header(&SIGNATURE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let given = STANDARD.decode(given).unwrap_or_default();
    let urls = urls(request.app.config.public_url.as_deref(), request.path_and_query());
    let signs =
        |token: &[u8]| urls.iter().fold(false, |found, url| form.is_signed(token, url, &given) | found);
    let signed = tokens.iter().fold(false, |found, token| signs(token) | found);
    drop(share);
    let account = account.filter(|account| signed && form.field("AccountSid") == Some(&account.account_sid));
    let account = account.ok_or_else(ApiError::callback_refused)?;
    if !form.read_by_one_way() {
        tracing::warn!(
            request_id = request.context.request_id,
            "refused a signed callback, because its fields can be split in more than one way; its report is lost"
        );
        return Err(ApiError::callback_refused());
    }
    if let Some(missing) = form.lacks() {
        return Err(lacks(missing));
    }
    let field = |name: &str| form.field(name);
    let sid = field("CallSid").filter(|sid| calls::is_sid(sid)).ok_or_else(|| lacks("CallSid"))?.to_owned();
    let told = match field("ParentCallSid").filter(|parent| calls::is_sid(parent)) {
        Some(parent) => CallbackContent::Leg { parent: parent.to_owned(), callee: dialled(&field)? },
        None if field("ParentCallSid").is_some() => return Err(lacks("ParentCallSid")),
        None => CallbackContent::Report(Box::new(report(&field)?)),
    };
    Ok(VerifiedCallback { account_changed_at: account.updated_at, sid, told })
}

/// The two tokens that may have made the signature. A missing one is replaced by another text, so that the
/// time of the comparison reveals nothing.
fn tokens(
    vault: &Vault,
    workspace: WorkspaceId,
    account: Option<&Account>,
) -> Result<[Zeroizing<Vec<u8>>; 2], ApiError> {
    let open = |sealed: Option<&Vec<u8>>, place: String| match sealed {
        Some(sealed) => vault.open(sealed, &place).map_err(ApiError::internal),
        None => Ok(b"no account has this token".to_vec().into()),
    };
    Ok([
        open(account.map(|account| &account.auth_token), token_place(workspace))?,
        open(
            account.and_then(|account| account.secondary_auth_token.as_ref()),
            secondary_token_place(workspace),
        )?,
    ])
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

/// The URLs that Twilio may have signed: the configured one, the same without its port, and the same with
/// its scheme's default port. Twilio's own validator accepts all of them.
fn urls(public_url: Option<&str>, path_and_query: &str) -> Vec<String> {
    let Some(base) = public_url.map(|url| url.trim_end_matches('/')) else { return Vec::new() };
    let mut urls = vec![format!("{base}{path_and_query}")];
    if let Some((scheme, rest)) = base.split_once("://") {
        let (authority, below) =
            rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
        let port = if scheme.eq_ignore_ascii_case("https") { "443" } else { "80" };
        // A colon in brackets belongs to an IPv6 address.
        let named = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let host = named.map_or(authority, |(host, _)| host);
        urls.push(format!("{scheme}://{host}{below}{path_and_query}"));
        urls.push(format!("{scheme}://{host}:{port}{below}{path_and_query}"));
    }
    urls.dedup();
    urls
}

/// The number that a leg dialled.
fn dialled<'f>(field: &impl Fn(&str) -> Option<&'f str>) -> Result<Option<String>, ApiError> {
    let callee = party(field, "To").map_err(|problem| ApiError::invalid(vec![*problem]))?;
    Ok(callee.as_ref().and_then(CallerId::number).map(str::to_owned))
}

/// The report of a callback with these fields.
pub(super) fn report<'f>(field: &impl Fn(&str) -> Option<&'f str>) -> Result<Report, ApiError> {
    let told = field("CallStatus").filter(|told| !told.is_empty()).ok_or_else(|| lacks("CallStatus"))?;
    // Twilio sends the duration together with the end.
    let seconds: Option<i64> = field("CallDuration").and_then(|text| text.parse().ok());
    let duration_ms =
        seconds.filter(|seconds| (0..=864_000).contains(seconds)).map(|seconds| seconds * 1_000);
    let mut details = Map::new();
    let (status, is_known) = told::status_of(told, None, duration_ms.is_some());
    if !is_known {
        calls::count_unknown("status");
        details.insert("status_detail".to_owned(), told::kept_word(told, LONGEST_STATUS).into());
    }
    let completion_reason = match status {
        Status::NoAnswer => Some("no_answer"),
        Status::Canceled => Some("abandoned"),
        Status::Failed => Some("error"),
        _ => None,
    };
    let (caller, callee) = (party(field, "From"), party(field, "To"));
    // A softphone's call is inbound for Twilio, because its first leg arrives there. For the practice it is outbound.
    let places = matches!(&caller, Ok(Some(caller)) if caller.is_softphone());
    let told = || field("Direction").map_or(Direction::Inbound, |told| told::direction(told).0);
    let direction = if places { Direction::Outbound } else { told() };
    let mut problems = Vec::new();
    let mut keep = |party: Result<Option<CallerId>, Box<Problem>>| {
        party.unwrap_or_else(|problem| {
            problems.push(*problem);
            None
        })
    };
    let report = Report {
        status,
        caller: keep(caller),
        callee: keep(callee),
        credential: None,
        direction: Some(direction),
        completion_reason: completion_reason.map(str::to_owned),
        duration_ms,
        started_at: None,
        ended_at: field("Timestamp").and_then(when).filter(|_| status.is_final()),
        service_id: None,
        patient: Facts::default(),
        details,
    };
    if problems.is_empty() { Ok(report) } else { Err(ApiError::invalid(problems)) }
}

/// A party of the call; `None` if the form does not name it.
fn party<'f>(
    field: &impl Fn(&str) -> Option<&'f str>,
    name: &'static str,
) -> Result<Option<CallerId>, Box<Problem>> {
    let Some(text) = field(name) else { return Ok(None) };
    let refused = |problem: NotANumber| {
        let loc = vec!["body".into(), name.into()];
        Box::new(Problem::value_error(loc, &problem.to_string(), Json::String(text.to_owned())))
    };
    CallerId::from_network(Some(text)).map(Some).map_err(refused)
}

/// The timestamp of an event. Twilio uses the format of e-mail (RFC 2822), which is HTTP's format with an
/// offset in place of the zone's name. It sends UTC, and other offsets are read too.
pub(super) fn when(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let (local, east) = match text.rsplit_once(' ') {
        Some((local, offset)) if offset.starts_with(['+', '-']) => (format!("{local} GMT"), minutes(offset)?),
        _ => (text.to_owned(), 0),
    };
    let since = httpdate::parse_http_date(&local).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let micros = i64::try_from(since.as_micros()).ok()?;
    Some(Timestamp::from_micros(micros - east * 60_000_000))
}

/// The minutes east of UTC of an offset such as `-0330`.
fn minutes(offset: &str) -> Option<i64> {
    let (sign, digits) = offset.split_at_checked(1)?;
    let number: i64 = digits.parse().ok().filter(|_| digits.len() == 4 && !digits.starts_with(['+', '-']))?;
    let (hours, minutes) = (number / 100, number % 100);
    let east = if sign == "-" { -1 } else { 1 };
    (hours < 24 && minutes < 60).then_some(east * (hours * 60 + minutes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_twilio_writes_them() {
        let moment = "2005-08-15T15:52:01.000000Z".parse().ok();
        assert_eq!(when("Mon, 15 Aug 2005 15:52:01 +0000"), moment);
        assert_eq!(when("Mon, 15 Aug 2005 15:52:01 GMT"), moment);
        assert_eq!(when("Mon, 15 Aug 2005 17:52:01 +0200"), moment);
        assert_eq!(when("Mon, 15 Aug 2005 12:22:01 -0330"), moment);
        for text in [
            "",
            "yesterday",
            "+0200",
            "Mon, 15 Aug 2005 15:52:01 +02",
            "Mon, 15 Aug 2005 15:52:01 +2460",
            "Mon, 15 Aug 2005 15:52:01 ++200",
            "Mon, 15 Aug 2005 15:52:01 EST",
            "2005-08-15T15:52:01Z",
        ] {
            assert_eq!(when(text), None, "{text}");
        }
    }

    #[test]
    fn a_port_may_be_spelled_out_or_not() {
        assert_eq!(
            urls(Some("https://w.example/"), "/x?y"),
            ["https://w.example/x?y", "https://w.example:443/x?y"]
        );
        assert_eq!(
            urls(Some("https://w.example:443"), "/x"),
            ["https://w.example:443/x", "https://w.example/x", "https://w.example:443/x"]
        );
        assert_eq!(urls(Some("http://[::1]/in"), "/x"), ["http://[::1]/in/x", "http://[::1]:80/in/x"]);
        assert_eq!(
            urls(Some("https://[::1]:8443"), "/x"),
            ["https://[::1]:8443/x", "https://[::1]/x", "https://[::1]:443/x"]
        );
        assert_eq!(
            urls(Some("http://w.example:8080"), "/x"),
            ["http://w.example:8080/x", "http://w.example/x", "http://w.example:80/x"]
        );
        assert!(urls(None, "/x").is_empty());
    }
}

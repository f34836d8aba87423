//! Twilio's list of the calls of an account (REST API 2010-04-01, "Read multiple Call resources").
//!
//! The list shows the parts of calls, which Twilio calls legs: a leg that names a parent was dialled on behalf of that call.
//! Its filters on times have the precision of a day, so the caller compares the times of each call itself.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use crate::client::{Answer, Outbound, Request};
use crate::{Failure, FailureKind, Secret};

/// Calls of one page. A call has about 2 KiB, and an answer has to fit into the client's bound.
const PAGE: u16 = 200;
/// The longest accepted reference to a further page, in bytes.
const LONGEST_PLACE: usize = 2_000;

/// A leg in Twilio's list. The texts are as Twilio sends them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ListedCall {
    /// The call SID of the leg, which begins with `CA`.
    pub sid: String,
    /// The id of the call on whose behalf the leg was dialled.
    pub parent_call_sid: Option<String>,
    /// The calling party: a number, or an address with a scheme.
    pub from: Option<String>,
    /// The called party, in the same forms.
    pub to: Option<String>,
    /// The status in Twilio's words, such as `completed`.
    pub status: Option<String>,
    /// The direction, such as `outbound-dial`.
    pub direction: Option<String>,
    /// The start, in the format of e-mail (RFC 2822). Null before the call is dialled.
    pub start_time: Option<String>,
    /// The end in the same format. Null for a call that was not answered.
    pub end_time: Option<String>,
    /// The duration in seconds, as text.
    pub duration: Option<String>,
}

/// A page of Twilio's list of calls.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CallPage {
    /// The legs of calls on this page, in the order of the list.
    pub calls: Vec<ListedCall>,
    /// The next page as a reference within Twilio's API, with its query. Null on the last page.
    pub next_page_uri: Option<String>,
}

/// The part of the list that a request asks for.
#[derive(Clone, Copy, Debug)]
pub enum PartOfList<'a> {
    /// The first page of the calls that started on these days (UTC, both included), as `2026-04-18`.
    Started {
        /// The first day on which a call started.
        from: &'a str,
        /// The last day on which a call started.
        to: &'a str,
    },
    /// The page at the end of an earlier page.
    Next(&'a str),
    /// The legs that were dialled on behalf of this call.
    LegsOf(&'a str),
}

/// The reason why there is no page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPage {
    /// Twilio refuses each of the tokens.
    Unauthorized,
    /// Twilio does not answer now. The pause is the one that it asks for.
    NotNow {
        /// The reason, as a short word.
        why: &'static str,
        /// The pause that Twilio asks for.
        after: Option<Duration>,
    },
    /// Twilio refuses the request in every attempt, with this status.
    Refused(u16),
    /// The answer is not a list of calls.
    NotAList,
    /// The request is not allowed, for this reason.
    Misconfigured(String),
}

/// An account at Twilio, and the tokens that may be valid.
#[derive(Clone, Copy, Debug)]
pub struct TwilioAccount<'a> {
    /// The scheme and the host of Twilio's API.
    pub api: &'a str,
    /// The account's SID, which is the user name.
    pub sid: &'a str,
    /// The tokens, tried in this order.
    pub tokens: &'a [Secret],
}

impl TwilioAccount<'_> {
    /// A part of the account's list of calls, before `deadline`.
    ///
    /// # Errors
    /// There is no page; the error says why.
    pub async fn calls(
        &self,
        outbound: &Outbound,
        part: PartOfList<'_>,
        deadline: Instant,
    ) -> Result<CallPage, NoPage> {
        let url = self.url(part).map_err(|failure| NoPage::Misconfigured(failure.message))?;
        for token in self.tokens {
            let headers = self.headers(token).map_err(|failure| NoPage::Misconfigured(failure.message))?;
            let request = Request { method: Method::GET, url: url.clone(), headers, body: Bytes::new() };
            let answer = outbound.send(&request, deadline).await.map_err(of_failure)?;
            if answer.status != StatusCode::UNAUTHORIZED {
                return judged(outbound, answer).await;
            }
        }
        Err(NoPage::Unauthorized)
    }

    /// The path of the account's list. A reference to a further page must lead to the same list, because the request
    /// carries the account's token.
    fn url(&self, part: PartOfList<'_>) -> Result<Url, Failure> {
        let list = format!("/2010-04-01/Accounts/{}/Calls.json", self.sid);
        let unusable = || Failure::misconfigured("the URL of Twilio's API cannot be used");
        let base = Url::parse(self.api).map_err(|_| unusable())?;
        let mut url = base.join(&list).map_err(|_| unusable())?;
        match part {
            PartOfList::Started { from, to } => {
                url.query_pairs_mut()
                    .append_pair("StartTime>", from)
                    .append_pair("StartTime<", to)
                    .append_pair("PageSize", &PAGE.to_string());
            }
            PartOfList::LegsOf(parent) => {
                url.query_pairs_mut()
                    .append_pair("ParentCallSid", parent)
                    .append_pair("PageSize", &PAGE.to_string());
            }
            PartOfList::Next(place) => {
                let foreign = || Failure::misconfigured("Twilio's next page is not a page of the same list");
                let query = place.strip_prefix(&list).and_then(|rest| rest.strip_prefix('?'));
                let query = query.filter(|_| place.len() <= LONGEST_PLACE && !place.contains('#'));
                url.set_query(Some(query.ok_or_else(foreign)?));
            }
        }
        Ok(url)
    }

    fn headers(&self, token: &Secret) -> Result<HeaderMap, Failure> {
        let pair = Zeroizing::new(format!("{}:{}", self.sid, token.expose()));
        let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        let mut value = HeaderValue::from_str(&basic)
            .map_err(|_| Failure::misconfigured("the token has characters that a header cannot carry"))?;
        value.set_sensitive(true);
        let json = HeaderValue::from_static("application/json");
        Ok(HeaderMap::from_iter([(ACCEPT, json), (AUTHORIZATION, value)]))
    }
}

async fn judged(outbound: &Outbound, answer: Answer) -> Result<CallPage, NoPage> {
    let seconds = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let after = seconds.map(Duration::from_secs);
    match answer.status {
        // The struct holds few fields of each call, so the memory stays below the size of the text.
        StatusCode::OK => {
            let read = outbound.work(move || serde_json::from_slice(&answer.body).ok()).await;
            read.map_err(of_failure)?.ok_or(NoPage::NotAList)
        }
        StatusCode::FORBIDDEN => Err(NoPage::Unauthorized),
        StatusCode::TOO_MANY_REQUESTS => Err(NoPage::NotNow { why: "throttled", after }),
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            Err(NoPage::NotNow { why: "server_error", after })
        }
        status if status.is_success() => Err(NoPage::NotAList),
        status => Err(NoPage::Refused(status.as_u16())),
    }
}

fn of_failure(failure: Failure) -> NoPage {
    let why = match failure.kind {
        FailureKind::Misconfigured => return NoPage::Misconfigured(failure.message),
        FailureKind::AuthFailed => return NoPage::Unauthorized,
        FailureKind::Timeout => "timeout",
        FailureKind::Unreachable => "unreachable",
        FailureKind::Tls => "tls",
        FailureKind::TooLarge => "answer_too_large",
        FailureKind::Garbage => "broken_answer",
        FailureKind::Busy => "busy",
    };
    NoPage::NotNow { why, after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "AC00000000000000000000000000000001";

    fn url(part: PartOfList<'_>) -> Result<String, Failure> {
        let account = TwilioAccount { api: "https://api.twilio.com", sid: SID, tokens: &[] };
        account.url(part).map(|url| url.to_string())
    }

    #[test]
    fn the_filters_have_the_documented_names() {
        let started = PartOfList::Started { from: "2026-04-18", to: "2026-04-20" };
        assert_eq!(
            url(started).unwrap(),
            format!(
                "https://api.twilio.com/2010-04-01/Accounts/{SID}/Calls.json\
                 ?StartTime%3E=2026-04-18&StartTime%3C=2026-04-20&PageSize=200"
            )
        );
    }

    #[test]
    fn a_next_page_leads_to_the_same_list_only() {
        let path = format!("/2010-04-01/Accounts/{SID}/Calls.json");
        let next = format!("{path}?Page=1&PageToken=PACA1");
        assert_eq!(url(PartOfList::Next(&next)).unwrap(), format!("https://api.twilio.com{next}"));
        let long = format!("{path}?{}", "x".repeat(LONGEST_PLACE));
        let fragment = format!("{next}#x");
        let other = next.replace(SID, "AC00000000000000000000000000000002");
        for foreign in
            ["", "https://evil.example/x?y", "//evil.example/x?y", &path, &other, &long, &fragment, "/x?y"]
        {
            assert!(url(PartOfList::Next(foreign)).is_err(), "{foreign}");
        }
    }
}

//! A stand-in of Twilio's list of calls (REST API 2010-04-01, "Call resource"): HTTP Basic with account and auth token, the
//! documented filters and names, newest calls first, and pages that refer to the next one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde_json::{Value, json};
use ward_db::Timestamp;
use ward_test::vendor::{ClientAuth, Vendor, VendorAnswer, VendorRequest};

use crate::calls::{ACCOUNT, TOKEN};

/// The most calls of a page, so that few calls make several pages. Twilio has 1,000.
const LARGEST_PAGE: usize = 3;

/// The running stand-in, and the answers that it gives before it goes on as documented.
#[derive(Clone)]
pub struct Twilio {
    pub vendor: Vendor,
    script: Arc<Mutex<VecDeque<VendorAnswer>>>,
}

impl Twilio {
    pub async fn start() -> Self {
        let script: Arc<Mutex<VecDeque<VendorAnswer>>> = Arc::default();
        let scripted = script.clone();
        let access = ClientAuth::Basic { user: ACCOUNT, password: TOKEN };
        let vendor = Vendor::start(access, move |asked, kept| {
            let next = scripted.lock().pop_front();
            next.unwrap_or_else(|| list(asked, kept))
        })
        .await;
        Self { vendor, script }
    }

    /// Answers the next requests like this.
    pub fn script(&self, said: impl IntoIterator<Item = VendorAnswer>) {
        self.script.lock().extend(said);
    }

    /// Adds a call that began at this time and lasted a minute.
    pub fn call(&self, sid: &str, at: Timestamp, change: impl FnOnce(&mut Value)) {
        let mut call = json!({
            "sid": sid, "account_sid": ACCOUNT, "parent_call_sid": null, "api_version": "2010-04-01",
            "from": "+15550100002", "from_formatted": "(555) 010-0002", "to": "+15550109999", "to_formatted": "(555) 010-9999",
            "status": "completed", "direction": "inbound", "start_time": rfc2822(at),
            "end_time": rfc2822(at.saturating_add(Duration::from_mins(1))), "duration": "60", "price": null,
            "price_unit": "USD", "answered_by": null, "queue_time": "0",
            "date_created": rfc2822(at), "date_updated": rfc2822(at),
            "uri": format!("/2010-04-01/Accounts/{ACCOUNT}/Calls/{sid}.json"), "subresource_uris": {},
        });
        change(&mut call);
        call["at"] = json!(at.micros());
        self.vendor.keep(call);
    }

    /// The queries that it got, without those for legs.
    pub fn pages(&self) -> Vec<String> {
        let asked = self.vendor.asked().into_iter().map(|asked| asked.query);
        asked.filter(|query| !query.contains("ParentCallSid")).collect()
    }
}

/// The format of times in Twilio's answers.
pub fn rfc2822(at: Timestamp) -> String {
    let since = Duration::from_micros(at.micros().unsigned_abs());
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since).replace("GMT", "+0000")
}

fn error(status: u16, code: u32) -> VendorAnswer {
    let body = json!({ "code": code, "message": "An error.", "more_info": format!("https://www.twilio.com/docs/errors/{code}"), "status": status });
    (status, Vec::new(), body)
}

/// 429 as Twilio documents it, with a pause in seconds.
pub fn throttled(seconds: u64) -> VendorAnswer {
    let (status, _, body) = error(429, 20_429);
    (status, vec![("retry-after", seconds.to_string())], body)
}

pub fn broken() -> VendorAnswer {
    error(503, 20_503)
}

fn midnight(day: &str) -> i64 {
    format!("{day}T00:00:00.000000Z").parse::<Timestamp>().expect("a day as YYYY-MM-DD").micros()
}

fn list(asked: &VendorRequest, kept: &[Value]) -> VendorAnswer {
    let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Calls.json");
    if asked.method != "GET" || asked.path != path {
        return error(404, 20_404);
    }
    let size: usize = asked.field("PageSize").and_then(|size| size.parse().ok()).unwrap_or(50);
    if !(1..=1_000).contains(&size) {
        return error(400, 20_001);
    }
    let (from, to) = (asked.field("StartTime>"), asked.field("StartTime<"));
    let parent = asked.field("ParentCallSid");
    let matches = |call: &&Value| {
        let at = call["at"].as_i64().unwrap_or_default();
        from.as_deref().is_none_or(|from| at >= midnight(from))
            // The strict reading of "on or before midnight of this date".
            && to.as_deref().is_none_or(|to| at <= midnight(to))
            && parent.as_deref().is_none_or(|parent| call["parent_call_sid"] == parent)
    };
    let mut found: Vec<Value> = kept.iter().filter(matches).cloned().collect();
    found.sort_by_key(|call| std::cmp::Reverse(call["at"].as_i64()));
    let begin = match asked.field("PageToken") {
        None => 0,
        Some(token) => match found
            .iter()
            .position(|call| token == format!("PA{}", call["sid"].as_str().unwrap_or_default()))
        {
            Some(last) => last + 1,
            None => return error(400, 20_006),
        },
    };
    let size = size.min(LARGEST_PAGE);
    let page: usize = asked.field("Page").and_then(|page| page.parse().ok()).unwrap_or(0);
    let shown: Vec<Value> = found.iter().skip(begin).take(size).cloned().collect();
    let filters = [("StartTime%3E", &from), ("StartTime%3C", &to), ("ParentCallSid", &parent)];
    let filters: String = filters
        .into_iter()
        .filter_map(|(name, value)| Some(format!("&{name}={}", value.as_ref()?)))
        .collect();
    let more = begin + shown.len() < found.len();
    let next = shown.last().filter(|_| more).map(|last| {
        let token = last["sid"].as_str().unwrap_or_default();
        format!("{path}?PageSize={size}{filters}&Page={}&PageToken=PA{token}", page + 1)
    });
    let body = json!({
        "calls": shown, "page": page, "page_size": size, "start": begin, "end": begin + shown.len(), "next_page_uri": next,
        "previous_page_uri": null, "first_page_uri": format!("{path}?PageSize={size}{filters}&Page=0"), "uri": path,
    });
    (200, Vec::new(), body)
}

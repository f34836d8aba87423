//! The JSON routes of leaked keys.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::actions::{self, LeakedKeyPolicyResponse, SetLeakedKeyPolicyRequest};
use super::signature::ClaimedSignature;
use super::{Leak, Place, store};
use crate::api_keys::secret::{KeyId, Presented};
use crate::error::ApiError;
use crate::gate::Entry;
use crate::http::{Open, Reply, Request, Sent};
use crate::text::hex;

/// The bytes of the largest report. A thousand secrets have room for places of a kilobyte each.
const LARGEST: usize = 1 << 20;

/// A secret that the scanner found.
#[derive(Deserialize)]
struct LeakedToken {
    token: String,
    r#type: Option<String>,
    url: Option<String>,
    source: Option<String>,
}

/// The answer about one secret, in the order of the report.
#[derive(Debug, Serialize)]
struct LeakedTokenVerdict {
    token_hash: String,
    token_type: String,
    label: Label,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Label {
    /// The secret is or was one of a key of this installation.
    TruePositive,
    FalsePositive,
}

/// A report as it is worked on: each secret once, and the answers without their labels.
struct Report {
    leaks: Vec<Leak>,
    tokens: Vec<(Option<KeyId>, LeakedTokenVerdict)>,
}

impl Report {
    fn of(sent: Vec<LeakedToken>) -> Self {
        let (mut leaks, mut at) = (Vec::<Leak>::new(), HashMap::<_, usize>::new());
        let mut tokens = Vec::with_capacity(sent.len());
        for one in sent {
            let presented = Presented::parse(one.token.as_bytes());
            if let Some(presented) = presented {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                let place = Place::new(&text(&one.url), &text(&one.source));
                match at.entry((presented.key_id, presented.hash)) {
                    Slot::Occupied(index) => leaks[*index.get()].add(place),
                    Slot::Vacant(slot) => {
                        slot.insert(leaks.len());
                        leaks.push(Leak::at(presented, place));
                    }
                }
            }
            let verdict = LeakedTokenVerdict {
                token_hash: hex(&Sha256::digest(&one.token)),
                token_type: one.r#type.unwrap_or_default(),
                label: Label::FalsePositive,
            };
            tokens.push((presented.map(|presented| presented.key_id), verdict));
        }
        Self { leaks, tokens }
    }
}

/// `report-leaked-keys`: the signature of a configured key is the credential. It covers the bytes of the body, so it is
/// verified before the body is parsed.
///
/// The label depends on the public part only, because a revoked or rotated secret was a real one. So every repetition of a
/// report gets the same answer.
pub async fn report(mut request: Request, _: Open) -> Result<Reply, ApiError> {
    if request.app.config.leak_report_keys.is_empty() {
        return Err(ApiError::no_route());
    }
    let claimed = ClaimedSignature::of(&request)?;
    let body = request.read_body_up_to(LARGEST).await?;
    let (app, context) = (request.app.clone(), request.context.clone());
    let bytes = body.bytes().clone();
    let reporter = claimed.identifier().to_owned();
    if !app.work.run(context.holder(), move || claimed.covers(&bytes)).await? {
        return Err(ApiError::callback_refused());
    }
    let sent = body.valid::<Vec<LeakedToken>>(&request).await?.value;
    let Report { leaks, mut tokens } = app.work.run(context.holder(), move || Report::of(sent)).await?;
    actions::count("no_key", tokens.iter().filter(|(key_id, _)| key_id.is_none()).count());
    let known = if leaks.is_empty() {
        HashSet::new()
    } else {
        actions::end_leaked(&app, &context, &reporter, leaks).await?
    };
    for (key_id, verdict) in &mut tokens {
        if key_id.is_some_and(|key_id| known.contains(&key_id)) {
            verdict.label = Label::TruePositive;
        }
    }
    let verdicts: Vec<LeakedTokenVerdict> = tokens.into_iter().map(|(_, verdict)| verdict).collect();
    Reply::ok(&verdicts)
}

pub async fn policy(request: Request, entry: Entry) -> Result<Reply, ApiError> {
    let workspace = entry.workspace()?.id;
    let read = move |tx: &mut ward_db::Tx<'_>| store::policy(tx, workspace);
    let action = request.app.db.read("api_keys.leaked_key_policy", read).await?;
    Reply::ok(&LeakedKeyPolicyResponse { action })
}

pub async fn set_policy(
    request: Request,
    (entry, sent): (Entry, Sent<SetLeakedKeyPolicyRequest>),
) -> Result<Reply, ApiError> {
    Reply::ok(&actions::set_policy(&request.app, entry, sent.value).await?)
}

//! Twilio: the account of a workspace, the status callbacks that Twilio signs with the account's tokens, and the comparison with
//! Twilio's own list of calls.

pub mod actions;
pub mod api;
mod callback;
pub mod form;
pub mod reconciling;
mod store;

use serde::{Deserialize, Serialize};
use serde_json::json;
use strum::{EnumString, IntoStaticStr, VariantArray};
use ward_db::{Error, Timestamp, Tx};

use crate::audit::{Actor, Subject, Write};
use crate::context::Context;
use crate::error::ApiError;
use crate::ids::WorkspaceId;
use crate::names::named;
use crate::vault::{ResealResult, SealedRow, Vault};

/// The consequence of a call that Twilio lists and Ward does not know.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Off,
    /// It is counted, and people learn its id. An account may have calls that are not this workspace's business.
    #[default]
    Report,
    /// It is recorded as an ended call, by the rules of a callback.
    Enter,
}

named!(Mode);

#[derive(Clone, Debug)]
pub struct Account {
    pub account_sid: String,
    /// The token that signs callbacks, sealed.
    pub auth_token: Vec<u8>,
    /// The second token, sealed. Its signatures are valid as well while the token is rotated.
    pub secondary_auth_token: Option<Vec<u8>>,
    /// The handling of calls that only Twilio's list has.
    pub reconciliation: Mode,
    /// The timestamp of the first set-up.
    pub created_at: Timestamp,
    /// The timestamp of the last change.
    pub updated_at: Timestamp,
}

/// The associated data of a workspace's sealed token.
pub fn token_place(workspace: WorkspaceId) -> String {
    format!("workspace/{workspace}/twilio/auth_token")
}

/// The associated data of a workspace's sealed second token.
pub fn secondary_token_place(workspace: WorkspaceId) -> String {
    format!("workspace/{workspace}/twilio/secondary_auth_token")
}

/// The path of a sealed token's field, from its associated data.
pub fn field_of(place: &str) -> &'static str {
    if place.ends_with("/secondary_auth_token") { "twilio/secondary_auth_token" } else { "twilio/auth_token" }
}

/// Seals the tokens of up to `most` workspaces after this one again, under the current key.
pub fn reseal(
    tx: &mut Tx<'_>,
    vault: &Vault,
    after: WorkspaceId,
    most: u32,
) -> Result<ResealResult<WorkspaceId>, Error> {
    vault.reseal_rows(sealed_rows(tx, after, most)?, |row, anew| {
        store::replace_token(tx, row.at, &row.bytes, anew)
    })
}

/// The sealed tokens of up to `most` workspaces after this one.
pub fn sealed_rows(
    tx: &mut Tx<'_>,
    after: WorkspaceId,
    most: u32,
) -> Result<Vec<SealedRow<WorkspaceId>>, Error> {
    let found = store::tokens(tx, after, most)?;
    let rows = found.into_iter().flat_map(|(workspace, first, second)| {
        let row = move |place: String, bytes: Vec<u8>, which: &str| SealedRow {
            at: workspace,
            place,
            bytes,
            what: format!("the {which} of workspace {workspace}"),
        };
        let second =
            second.map(|bytes| row(secondary_token_place(workspace), bytes, "second Twilio auth token"));
        [Some(row(token_place(workspace), first, "Twilio auth token")), second].into_iter().flatten()
    });
    Ok(rows.collect())
}

/// Deletes a token that no key opens any more, for the operator. The loss of the first token deletes the
/// whole account. Returns `false` if the account now has another token.
pub fn forget(tx: &mut Tx<'_>, context: &Context, row: &SealedRow<WorkspaceId>) -> Result<bool, ApiError> {
    let write = &mut Write::begin(tx, row.at, Actor::OPERATOR, context)?;
    let Some(account) = store::get(write, row.at)? else { return Ok(false) };
    let forgotten = if account.auth_token == row.bytes {
        store::remove(write)?;
        "auth_token"
    } else if account.secondary_auth_token.as_ref() == Some(&row.bytes) {
        store::remove_secondary_token(write)?;
        "secondary_auth_token"
    } else {
        return Ok(false);
    };
    write.record("twilio.secrets_forgotten", ACCOUNT, json!({ "secrets_forgotten": [forgotten] }))?;
    Ok(true)
}

/// The account as the subject of an audit event.
const ACCOUNT: Subject<'static> = Subject { service: "calls", kind: "twilio_account", id: None, name: None };

/// The number of accounts with a token that is sealed under another key than the current one.
pub fn count_under_other_keys(tx: &mut Tx<'_>, vault: &Vault) -> Result<i64, Error> {
    store::count_under_other_keys(tx, vault.key_mark())
}

/// The callback URL to configure at Twilio, if the operator has set `public_url`.
pub fn callback_url(public_url: Option<&str>, workspace: WorkspaceId) -> Option<String> {
    public_url.map(|url| format!("{}/v1/{workspace}/twilio/status", url.trim_end_matches('/')))
}

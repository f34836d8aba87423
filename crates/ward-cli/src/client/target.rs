//! The server that a command asks, and the credential for it.

use ward::clock::Clock;

use super::issuer;
use super::profiles::{Credential, Kept, Profiles, Store, Token};
use super::wire::{Base, Caller};
use crate::failure::CodedFailure;

/// The variable with an API key or an access token, for scripts. No flag takes one, because other users of a machine see flags.
const KEY_VARIABLE: &str = "WARD_CLIENT_KEY";
/// The time before its end from which a token is replaced.
const EARLY: i64 = 30;

/// The flags of every command that asks a server.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// The profile that `ward login` made. Default: the default profile.
    #[arg(long, global = true, value_name = "NAME", env = "WARD_CLIENT_PROFILE", help_heading = "Server")]
    pub profile: Option<String>,
    /// The URL of the server, in place of the profile's. The profile's credential is then not sent.
    #[arg(long, global = true, value_name = "URL", env = "WARD_CLIENT_URL", help_heading = "Server")]
    pub url: Option<String>,
    /// The id of the workspace of operations that name none. Default: the profile's.
    #[arg(long, global = true, value_name = "ID", env = "WARD_CLIENT_WORKSPACE", help_heading = "Server")]
    pub workspace: Option<String>,
}

/// A server, with everything that requests to it need.
pub struct Resolved {
    pub base: Base,
    pub bearer: Option<String>,
    pub workspace: Option<String>,
}

impl Target {
    /// Finds the server and the credential. With `anonymous`, no credential is looked for.
    ///
    /// # Errors
    ///
    /// Neither a profile nor a flag names a server, or the profile's token cannot be renewed.
    pub async fn resolve(&self, anonymous: bool) -> Result<Resolved, CodedFailure> {
        let given = std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty() && !anonymous);
        let profiles = Profiles::read()?;
        let named = if self.url.is_some() && self.profile.is_none() {
            None
        } else {
            profiles.named(self.profile.as_deref())?
        };
        let Some((name, profile)) = named else {
            let nowhere = "no server is named: `ward login --url URL` makes a profile, and --url names one";
            let url = self.url.as_deref().ok_or_else(|| CodedFailure::usage(nowhere))?;
            let base = Base::parse(url, false)?;
            return Ok(Resolved { base, bearer: given, workspace: self.workspace.clone() });
        };
        let own = Base::parse(&profile.url, profile.plain_http)?;
        let base = match &self.url {
            Some(url) => Base::parse(url, profile.plain_http)?,
            None => own.clone(),
        };
        let workspace = self.workspace.clone().or_else(|| profile.workspace.clone());
        // Another server must not get the credential.
        let sends = !anonymous && given.is_none() && base.as_text() == own.as_text();
        let bearer = if sends { Some(current(name, profile.credential(name)?).await?) } else { given };
        Ok(Resolved { base, bearer, workspace })
    }
}

impl Resolved {
    pub fn caller(&self, repeats: u32) -> Result<Caller, CodedFailure> {
        Caller::new(self.base.clone(), self.bearer.as_deref(), repeats)
    }
}

/// Whether a token ends too soon for a request, and can be replaced.
fn is_due(token: &Token) -> bool {
    let now = Clock::default().now().micros() / 1_000_000;
    token.refresh.is_some() && token.expires_at.is_some_and(|end| end - EARLY <= now)
}

/// The text after `Bearer`, from a credential that is replaced first if it is due.
async fn current(name: &str, credential: Credential) -> Result<String, CodedFailure> {
    if !matches!(&credential, Credential::Token(token) if is_due(token)) {
        return Ok(credential.bearer().to_owned());
    }
    // The lock makes commands that run at once use a refresh token once.
    let mut change = Profiles::change()?;
    let Some(mut profile) = change.profiles.profiles.get(name).cloned() else {
        return Err(CodedFailure::local(format!("the profile {name:?} was removed meanwhile")));
    };
    let kept = matches!(profile.credential, Kept::Here(_));
    let token = match profile.credential(name)? {
        Credential::Token(token) if is_due(&token) => issuer::refreshed(&token).await?,
        other => return Ok(other.bearer().to_owned()),
    };
    let bearer = token.access.clone();
    profile.credential = Kept::Here(Credential::Token(token));
    change.put(name, profile, if kept { Store::File } else { Store::Keyring })?;
    change.save()?;
    Ok(bearer)
}

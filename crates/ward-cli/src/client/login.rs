//! `ward login`, `ward claim`, `ward logout` and `ward profiles`.

use std::io::Read as _;

use console::Term;
use reqwest::Method;
use serde_json::{Value, json};

use super::arguments::{Filled, fill};
use super::issuer::{self, IssuerArguments};
use super::operations::Operation;
use super::profiles::{Credential, Kept, Profile, Profiles, Store};
use super::wire::{Base, Caller, Outgoing};
use crate::failure::{CodedFailure, Failure};
use crate::show::Output;

/// The bootstrap token, under the name that a server has it by.
const BOOTSTRAP_VARIABLE: &str = "WARD_BOOTSTRAP_TOKEN";
/// The repeats of a request without an answer.
const REPEATS: u32 = 4;
/// The longest life of a key.
const LONGEST_DAYS: u8 = 90;

/// The profile that a sign-in makes.
#[derive(Clone, Debug, clap::Args)]
pub struct NewProfile {
    /// The URL of the server, such as `https://ward.example.com`. Default: that of the profile, if it exists.
    #[arg(long, value_name = "URL", env = "WARD_CLIENT_URL")]
    pub url: Option<String>,
    /// The name of the profile. An existing profile of this name is replaced.
    #[arg(long, value_name = "NAME", env = "WARD_CLIENT_PROFILE", default_value = "default")]
    pub profile: String,
    /// The place for the credential: the file of profiles, or the keyring of the desktop.
    #[arg(long, value_enum, default_value_t)]
    pub store: Store,
    /// Allow a server on another machine over plain http. Everyone who can read the network's traffic then gets the credential.
    #[arg(long)]
    pub plain_http: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub struct LoginArguments {
    #[command(flatten)]
    pub new: NewProfile,
    /// The id of the workspace of operations that name none. Default: the only workspace of the credential.
    #[arg(long, value_name = "ID")]
    pub workspace: Option<String>,
    #[command(flatten)]
    pub issuer: IssuerArguments,
}

#[derive(Clone, Debug, clap::Args)]
pub struct ClaimArguments {
    #[command(flatten)]
    pub new: NewProfile,
    /// Create a workspace with this slug first. Without it, the id of an unclaimed workspace is read from standard input.
    #[arg(long, value_name = "SLUG")]
    pub create: Option<String>,
    /// The display name of the new workspace. Default: the slug.
    #[arg(long, value_name = "NAME", requires = "create")]
    pub name: Option<String>,
    /// The environment of the new workspace: production, staging or development.
    #[arg(long, value_name = "NAME", requires = "create", default_value = "development")]
    pub environment: String,
    /// The name of the key in lists.
    #[arg(long, value_name = "NAME", default_value = "first key")]
    pub key_name: String,
    /// The life of the key in days.
    #[arg(long, value_name = "DAYS", default_value_t = LONGEST_DAYS)]
    pub days: u8,
}

impl NewProfile {
    fn base(&self, profiles: &Profiles) -> Result<Base, CodedFailure> {
        let before = profiles.profiles.get(&self.profile);
        let url = self.url.as_ref().or_else(|| before.map(|profile| &profile.url));
        let url = url.ok_or_else(|| CodedFailure::usage("--url must name the server"))?;
        Base::parse(url, self.plain_http)
    }

    fn profile(&self, base: &Base, workspace: Option<String>, credential: Credential) -> Profile {
        let url = base.as_text().to_owned();
        Profile { url, plain_http: self.plain_http, workspace, credential: Kept::Here(credential) }
    }
}

/// Checks a credential at the server and keeps it in a profile.
pub async fn login(arguments: LoginArguments, out: Output) -> Result<(), Failure> {
    let LoginArguments { new, workspace, issuer } = arguments;
    let base = new.base(&Profiles::read()?)?;
    let credential = if issuer.issuer.is_some() {
        Credential::Token(issuer::sign_in(&issuer, out).await?)
    } else {
        Credential::Key { secret: secret("API key")? }
    };
    let caller = Caller::new(base.clone(), Some(credential.bearer()), REPEATS)?;
    let me = ask(&caller, "get-me", &[]).await?;
    let memberships = me["memberships"]["items"].as_array().cloned().unwrap_or_default();
    let only = match &memberships[..] {
        [only] if me["memberships"]["has_more"] == false => only["workspace_id"].as_str().map(str::to_owned),
        _ => None,
    };
    let workspace = workspace.or(only);
    let mut change = Profiles::change()?;
    change.put(&new.profile, new.profile(&base, workspace.clone(), credential), new.store)?;
    let file = change.save()?;
    out.one(&json!({
        "profile": new.profile, "file": file, "url": base.as_text(), "kind": me["kind"], "entity_id": me["entity_id"],
        "display_name": me["display_name"], "workspace": workspace, "expires_at": me["credential"]["expires_at"],
    }))?;
    Ok(())
}

/// Claims an unclaimed workspace and keeps its owner's key in a profile. The key is never printed, unless it cannot be kept.
pub async fn claim(arguments: ClaimArguments, out: Output) -> Result<(), Failure> {
    let ClaimArguments { new, create, name, environment, key_name, days } = arguments;
    // The key is shown once, so the profile's place is checked before the claim.
    let mut change = Profiles::change()?;
    let base = new.base(&change.profiles)?;
    let workspace = match create {
        Some(slug) => {
            let token = std::env::var(BOOTSTRAP_VARIABLE).ok().filter(|token| !token.is_empty());
            let name = name.unwrap_or_else(|| slug.clone());
            let fields =
                [format!("slug={slug}"), format!("name={name}"), format!("environment={environment}")];
            let caller = Caller::new(base.clone(), token.as_deref(), REPEATS)?;
            let created = ask(&caller, "create-workspace", &fields).await?;
            created["id"].as_str().unwrap_or_default().to_owned()
        }
        // Until the claim, the id is a secret.
        None => secret("id of the unclaimed workspace")?,
    };
    let fields =
        [format!("workspace_id={workspace}"), format!("name={key_name}"), format!("duration_days={days}")];
    let caller = Caller::new(base.clone(), None, REPEATS)?;
    let key = ask(&caller, "create-api-key", &fields).await?;
    let secret = key["api_key"].as_str().unwrap_or_default().to_owned();
    let profile = new.profile(&base, Some(workspace.clone()), Credential::Key { secret: secret.clone() });
    let kept = change.put(&new.profile, profile, new.store).and_then(|()| change.save());
    let file = match kept {
        Ok(file) => file,
        Err(failure) => {
            // The key cannot be shown again, and it is the only way into the workspace.
            out.one(&json!({ "workspace": workspace, "api_key": secret }))?;
            return Err(failure.into());
        }
    };
    out.one(&json!({
        "profile": new.profile, "file": file, "url": base.as_text(), "workspace": workspace, "key_id": key["key_id"],
        "role": key["role"], "expires_at": key["expires_at"],
    }))?;
    Ok(())
}

/// Removes a profile with its credential. The credential stays valid at the server.
pub fn logout(name: Option<&str>, out: Output) -> Result<(), Failure> {
    let mut change = Profiles::change()?;
    let name = name.or(change.profiles.default.as_deref()).unwrap_or("default").to_owned();
    if !change.remove(&name) {
        return Err(CodedFailure::usage(format!("there is no profile {name:?}")).into());
    }
    change.save()?;
    out.remark(&format!(
        "The profile {name} is removed. Its credential stays valid until it expires or is revoked."
    ));
    Ok(())
}

/// Lists the profiles, without their credentials. With a name, that profile becomes the default one.
pub fn profiles(default: Option<String>, out: Output) -> Result<(), Failure> {
    let profiles = match default {
        Some(name) => {
            let mut change = Profiles::change()?;
            change.profiles.named(Some(&name))?;
            change.profiles.default = Some(name);
            let profiles = change.profiles.clone();
            change.save()?;
            profiles
        }
        None => Profiles::read()?,
    };
    let rows: Vec<Value> = profiles
        .profiles
        .iter()
        .map(|(name, profile)| {
            let credential = match &profile.credential {
                Kept::Here(Credential::Key { .. }) => "API key",
                Kept::Here(Credential::Token(_)) => "token",
                Kept::Keyring => "in the keyring",
            };
            let default = profiles.default.as_ref() == Some(name);
            json!({ "profile": name, "default": default, "url": profile.url, "workspace": profile.workspace, "credential": credential })
        })
        .collect();
    Ok(out.many(&rows, &["profile", "default", "url", "workspace", "credential"])?)
}

/// Sends one operation and returns the body of its success.
async fn ask(caller: &Caller, operation: &str, fields: &[String]) -> Result<Value, CodedFailure> {
    let unknown = || CodedFailure::local(format!("the document has no {operation}"));
    let operation = Operation::named(operation).ok_or_else(unknown)?;
    let filled: Filled = fill(operation, fields, None, &mut std::io::empty())?;
    let idempotency_key = (operation.method == Method::POST).then(super::new_key);
    let outgoing = Outgoing { method: operation.method.clone(), filled, idempotency_key };
    let answered = caller.send(&outgoing).await?;
    match answered.failure() {
        Some(failure) => Err(failure),
        None => Ok(answered.json()),
    }
}

/// Reads a secret: from a terminal without an echo, otherwise all of standard input.
fn secret(what: &str) -> Result<String, CodedFailure> {
    let terminal = Term::stderr();
    let unread = |error: std::io::Error| CodedFailure::local(format!("the {what} cannot be read: {error}"));
    let text = if std::io::IsTerminal::is_terminal(&std::io::stdin()) && terminal.is_term() {
        terminal.write_str(&format!("{what}: ")).map_err(unread)?;
        terminal.read_secure_line().map_err(unread)?
    } else {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(unread)?;
        text
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(CodedFailure::usage(format!("standard input has no {what}")));
    }
    Ok(text.to_owned())
}

//! Secrets of integrations: the references that answers show for them, the origins that each may go to, and
//! their seals.

use serde::Deserialize;
use strum::{IntoStaticStr, VariantArray};
use url::Url;
use ward_contract::validate::{Json, Loc, Problem};
use ward_db::Tx;
use zeroize::Zeroizing;

use super::{AuthConfig, AuthKind, store};
use crate::error::ApiError;
use crate::guard::WorkspaceGuard;
use crate::ids::{IntegrationId, WorkspaceId};
use crate::vault::{self, ResealResult, SealedRow, Vault};

/// Secrets that one transaction seals again.
const RESEALED_AT_ONCE: i64 = 200;

/// The path of a secret within an integration: `auth/client_secret`, `endpoints/find/auth/api_key`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Field(pub String);

/// The start of the fields of generated keys, before the key's id.
const KEYS: &str = "keys/";

impl Field {
    /// The field of the generated key with this id.
    pub fn of_key(kid: &str) -> Self {
        Self(format!("{KEYS}{kid}"))
    }

    /// The id of a generated key; `None` for any other secret.
    pub fn kid(&self) -> Option<&str> {
        self.0.strip_prefix(KEYS)
    }
}

/// The readable columns of a stored secret.
#[derive(Clone, Debug)]
pub(super) struct StoredSecret {
    pub field: Field,
    pub reference: String,
    pub origins: String,
}

/// A sealed secret as the database stores it.
#[derive(Clone, Debug)]
pub(super) struct SealedSecret {
    pub workspace: WorkspaceId,
    pub integration: IntegrationId,
    pub field: Field,
    pub origins: String,
    pub bytes: Vec<u8>,
    /// The algorithm of the generated key that signs the integration's assertions; `None` for any other secret.
    pub signs_with: Option<String>,
}

impl SealedSecret {
    /// The associated data of the seal: bytes that are moved to another row do not open.
    pub fn place(workspace: WorkspaceId, integration: IntegrationId, field: &Field) -> String {
        format!("integration secret/{workspace}/{integration}/{}", field.0)
    }

    pub fn open(&self, vault: &Vault) -> Result<Zeroizing<String>, ApiError> {
        let place = Self::place(self.workspace, self.integration, &self.field);
        let bytes = vault.open(&self.bytes, &place).map_err(ApiError::internal)?;
        String::from_utf8(bytes.to_vec()).map(Zeroizing::new).map_err(|_| ApiError::internal("a sealed text"))
    }
}

#[derive(Clone, Deserialize)]
pub(super) struct SecretInput {
    #[serde(deserialize_with = "wiped")]
    value: Zeroizing<String>,
}

/// Reads a text into memory that is wiped after use.
fn wiped<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

// Written by hand, because a derived one would show the secret.
impl std::fmt::Debug for SecretInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretInput(..)")
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct AuthConfigWithSecrets {
    #[serde(flatten)]
    pub config: AuthConfig,
    api_key_value: Option<SecretInput>,
    bearer_token_value: Option<SecretInput>,
    client_secret_value: Option<SecretInput>,
    private_key_value: Option<SecretInput>,
}

impl From<AuthConfig> for AuthConfigWithSecrets {
    fn from(config: AuthConfig) -> Self {
        Self {
            config,
            api_key_value: None,
            bearer_token_value: None,
            client_secret_value: None,
            private_key_value: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(super) enum SecretKind {
    ApiKey,
    BearerToken,
    ClientSecret,
    PrivateKey,
}

impl SecretKind {
    /// The kind of secret that this kind of authentication uses.
    pub const fn of(kind: AuthKind) -> Self {
        match kind {
            AuthKind::ApiKeyHeader => Self::ApiKey,
            AuthKind::BearerToken => Self::BearerToken,
            AuthKind::ClientCredentials => Self::ClientSecret,
            AuthKind::JwtBearer | AuthKind::GcpWif | AuthKind::SmartBackendServices => Self::PrivateKey,
        }
    }

    pub fn name(self) -> &'static str {
        self.into()
    }

    pub const fn reference_field(self) -> &'static str {
        match self {
            Self::ApiKey => "ssm_param_path",
            Self::BearerToken => "token_ssm_param_path",
            Self::ClientSecret => "client_secret_ssm_param_path",
            Self::PrivateKey => "private_key_ssm_param_path",
        }
    }

    /// The field of `auth` that refers to the sealed secret.
    pub const fn reference(self, auth: &mut AuthConfig) -> &mut Option<String> {
        match self {
            Self::ApiKey => &mut auth.ssm_param_path,
            Self::BearerToken => &mut auth.token_ssm_param_path,
            Self::ClientSecret => &mut auth.client_secret_ssm_param_path,
            Self::PrivateKey => &mut auth.private_key_ssm_param_path,
        }
    }

    const fn given(self, auth: &AuthConfigWithSecrets) -> Option<&SecretInput> {
        match self {
            Self::ApiKey => auth.api_key_value.as_ref(),
            Self::BearerToken => auth.bearer_token_value.as_ref(),
            Self::ClientSecret => auth.client_secret_value.as_ref(),
            Self::PrivateKey => auth.private_key_value.as_ref(),
        }
    }
}

/// Scheme, host and port of a URL, whose path may have placeholders. `None` if the host is not known yet.
pub(super) fn origin(url: &str) -> Option<String> {
    let authority_end = url.find("://").map(|at| at + 3)?;
    let end = url[authority_end..].find(['/', '?', '#']).map_or(url.len(), |at| authority_end + at);
    let parsed = Url::parse(&url[..end]).ok()?;
    let plain = !url[..end].contains('{') && parsed.host().is_some();
    plain.then(|| parsed.origin().ascii_serialization())
}

/// The origins that receive the secret of this authentication, or a token obtained with it. They are the called
/// origin and that of the token endpoint. A change of either makes the stored secret unusable. `None` if
/// they are not known yet.
pub(super) fn destinations(auth: &AuthConfig, base_url: &str) -> Option<String> {
    let called = origin(base_url)?;
    match (auth.kind, auth.token_url.as_deref()) {
        (AuthKind::ApiKeyHeader | AuthKind::BearerToken, _) => Some(called),
        (_, Some(token_url)) if !token_url.is_empty() => Some(format!("{called} {}", origin(token_url)?)),
        _ => Some(format!("{called} discovered")),
    }
}

/// The owner of an authentication: the integration itself, or one of its endpoints.
pub(super) struct AssociatedData<'a> {
    /// The endpoint, by index and name; `None` for the integration.
    pub endpoint: Option<(usize, &'a str)>,
    pub base_url: &'a str,
}

impl AssociatedData<'_> {
    pub fn field(&self, kind: SecretKind) -> Field {
        Field(match self.endpoint {
            None => format!("auth/{}", kind.name()),
            Some((_, name)) => format!("endpoints/{name}/auth/{}", kind.name()),
        })
    }

    fn loc(&self, field: &str) -> Vec<Loc> {
        let mut loc = vec![Loc::from("body")];
        if let Some((index, _)) = self.endpoint {
            loc.extend([Loc::from("endpoints"), Loc::from(index)]);
        }
        loc.extend([Loc::from("auth"), Loc::from(field.to_owned())]);
        loc
    }
}

/// The text that an error shows for a value that may be a secret.
fn hidden() -> Json {
    Json::String("**********".to_owned())
}

/// The effect of a change on an integration's secrets.
#[derive(Default)]
pub(super) struct SecretPlan {
    /// Secrets to seal: the field, the allowed origins, the reference, the value.
    pub put: Vec<(Field, String, String, Zeroizing<String>)>,
    /// Fields whose secrets stay, because a reference to them is unchanged.
    pub kept: Vec<Field>,
    /// Invalid references in the request, and secrets whose origin is unknown.
    pub problems: Vec<Problem>,
}

impl SecretPlan {
    /// Decides on one authentication. It seals the given secrets, and keeps a referenced secret if its
    /// origins are unchanged. It refuses references that Ward did not issue for this very field.
    pub fn resolve(
        &mut self,
        place: &AssociatedData<'_>,
        input: &AuthConfigWithSecrets,
        stored: &[StoredSecret],
    ) -> AuthConfig {
        let mut auth = input.config.clone();
        let destinations = destinations(&auth, place.base_url);
        if place.endpoint.is_none() && SecretKind::of(auth.kind) == SecretKind::PrivateKey {
            let usable = |secret: &&StoredSecret| {
                secret.field.kid().is_some() && Some(&secret.origins) == destinations.as_ref()
            };
            self.kept.extend(stored.iter().filter(usable).map(|secret| secret.field.clone()));
        }
        for &kind in SecretKind::VARIANTS {
            let field = place.field(kind);
            let known = stored.iter().find(|secret| secret.field == field);
            let given = kind.given(input);
            let slot = kind.reference(&mut auth);
            let referred = slot.take();
            // The rules have already refused secrets that this kind of authentication does not use.
            if let Some(given) = given {
                let Some(destinations) = destinations.clone() else {
                    let field = format!("{}_value", kind.name());
                    let message = "a secret needs a base_url (and a token_url, if there is one) with a known host, because it \
                                   is sent nowhere else";
                    self.problems.push(Problem::value_error(place.loc(&field), message, hidden()));
                    continue;
                };
                let reference = format!("ward:{}", crate::random::id());
                *slot = Some(reference.clone());
                self.put.push((field, destinations, reference, given.value.clone()));
            } else if let Some(referred) = referred {
                match known.filter(|known| known.reference == referred) {
                    None => {
                        let message =
                            "is not a reference that Ward issued for this workspace, integration and field";
                        let loc = place.loc(kind.reference_field());
                        // The text may be a secret in the wrong field.
                        self.problems.push(Problem::value_error(loc, message, hidden()));
                    }
                    Some(known) if Some(&known.origins) == destinations.as_ref() => {
                        *slot = Some(referred);
                        self.kept.push(field);
                    }
                    // The secret was given for another origin, so it is dropped.
                    Some(_) => {}
                }
            }
        }
        auth
    }

    /// Whether the integration has a secret for its own authentication after the change.
    pub fn keeps_secret_of(&self, auth: &AuthConfig) -> bool {
        let kind = SecretKind::of(auth.kind);
        let own = AssociatedData { endpoint: None, base_url: "" }.field(kind);
        let fits = |field: &Field| *field == own || kind == SecretKind::PrivateKey && field.kid().is_some();
        self.put.iter().any(|(field, ..)| fits(field)) || self.kept.iter().any(fits)
    }

    /// Writes the decided changes, and returns the fields that lost their secret.
    pub fn carry_out(
        &self,
        tx: &mut WorkspaceGuard<'_, '_>,
        vault: &Vault,
        integration: IntegrationId,
        stored: &[StoredSecret],
        now: ward_db::Timestamp,
    ) -> Result<Vec<String>, ApiError> {
        let workspace = tx.row();
        let mut dropped = Vec::new();
        for secret in stored {
            if self.put.iter().any(|(field, ..)| *field == secret.field) || self.kept.contains(&secret.field)
            {
                continue;
            }
            store::drop_secret(tx, integration, &secret.field)?;
            dropped.push(secret.field.0.clone());
        }
        if !self.put.is_empty() {
            vault::hold(tx, vault)?;
        }
        for (field, origins, reference, value) in &self.put {
            let place = SealedSecret::place(workspace, integration, field);
            let bytes = vault.seal(value.as_bytes(), &place).map_err(ApiError::internal)?;
            let (field, origins) = (field.clone(), origins.clone());
            let new = SealedSecret { workspace, integration, field, origins, bytes, signs_with: None };
            store::put_secret(tx, &new, reference, &vault.key_id(), now)?;
        }
        Ok(dropped)
    }
}

/// Opens the secret of one authentication, if it has one that may go to these origins. The active generated key
/// comes before a private key that a person gave. The origins are checked again here, because the seal does not
/// cover the column that stores them.
pub(super) fn open_for<'s>(
    auth: &AuthConfig,
    place: &AssociatedData<'_>,
    sealed: &'s [SealedSecret],
    vault: &Vault,
) -> Result<Option<(&'s SealedSecret, Zeroizing<String>)>, ApiError> {
    let kind = SecretKind::of(auth.kind);
    let field = place.field(kind);
    let destinations = destinations(auth, place.base_url);
    let may_go = |secret: &&SealedSecret| Some(&secret.origins) == destinations.as_ref();
    let signs = kind == SecretKind::PrivateKey && place.endpoint.is_none();
    let generated = sealed.iter().filter(|_| signs).find(|secret| secret.signs_with.is_some());
    let found = generated
        .filter(may_go)
        .or_else(|| sealed.iter().filter(may_go).find(|secret| secret.field == field));
    found.map(|secret| Ok((secret, secret.open(vault)?))).transpose()
}

/// The number of secrets sealed under another key than the current one.
pub fn count_under_other_keys(tx: &mut Tx<'_>, vault: &Vault) -> Result<i64, ApiError> {
    Ok(store::count_under_other_keys(tx, &vault.key_id())?)
}

/// The key of a secret's row; the text is the field.
pub type SecretAt = (WorkspaceId, IntegrationId, String);

fn row(secret: SealedSecret) -> SealedRow<SecretAt> {
    SealedRow {
        place: SealedSecret::place(secret.workspace, secret.integration, &secret.field),
        what: format!(
            "{} of integration {} of workspace {}",
            secret.field.0, secret.integration, secret.workspace
        ),
        at: (secret.workspace, secret.integration, secret.field.0),
        bytes: secret.bytes,
    }
}

/// A page of the secrets of all workspaces, under every key, after this row.
pub fn sealed_rows(
    tx: &mut Tx<'_>,
    after: Option<&SecretAt>,
) -> Result<Vec<SealedRow<SecretAt>>, ward_db::Error> {
    // No key has an empty id, so this finds every secret.
    let found = store::under_other_keys(tx, "", after, RESEALED_AT_ONCE)?;
    Ok(found.into_iter().map(row).collect())
}

/// Removes the references to deleted secrets from an authentication.
pub(super) fn strip(auth: &mut AuthConfig, place: &AssociatedData<'_>, gone: &[&str]) {
    for &kind in SecretKind::VARIANTS {
        if gone.contains(&place.field(kind).0.as_str()) {
            *kind.reference(auth) = None;
        }
    }
}

/// Seals some of the secrets under another key again, from the row after this one.
pub fn reseal(
    tx: &mut Tx<'_>,
    vault: &Vault,
    after: Option<&SecretAt>,
) -> Result<ResealResult<SecretAt>, ApiError> {
    let found = store::under_other_keys(tx, &vault.key_id(), after, RESEALED_AT_ONCE)?;
    let rows = found.into_iter().map(row);
    let replace =
        |row: &SealedRow<SecretAt>, anew: &[u8]| store::replace_sealed(tx, row, anew, &vault.key_id());
    Ok(vault.reseal_rows(rows.collect(), replace)?)
}

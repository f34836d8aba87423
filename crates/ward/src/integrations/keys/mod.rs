//! Key pairs that Ward generates for an integration's assertions. The private half is a sealed secret that no answer
//! shows. The public half is part of the integration's JWK set, which the vendor fetches without a credential.
//!
//! An integration has two keys at most, so that one can be published before it signs, and the former one stays
//! published until the vendor has fetched the set again.

pub mod actions;
pub mod api;
mod store;

use serde_json::Value;
use ward_db::Timestamp;

use strum::{EnumString, IntoStaticStr, VariantArray};

use super::secrets::SecretKind;
use super::{AuthConfig, AuthKind};
use crate::ids::{IntegrationId, WorkspaceId};
use crate::names::named;

/// The most keys of an integration: the one that signs, and the next or the former one.
const MOST: u8 = 2;

/// The state of a generated key. A key is published in every state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum KeyState {
    /// It signs nothing yet, so that the vendor can fetch it first.
    Next,
    /// It signs the integration's assertions; at most one key is active.
    Active,
    /// It signs nothing any more, and is published until it is removed.
    Former,
}

named!(KeyState);

/// A generated key without its private half.
#[derive(Clone, Debug)]
struct Key {
    kid: String,
    algorithm: String,
    state: KeyState,
    /// The public half as a JWK.
    public: Value,
    created_at: Timestamp,
    activated_at: Option<Timestamp>,
}

/// The URL of an integration's JWK set. `None` if the operator has not set `public_url`.
pub(super) fn set_url(
    public_url: Option<&str>,
    workspace: WorkspaceId,
    integration: IntegrationId,
) -> Option<String> {
    let base = public_url?.trim_end_matches('/');
    Some(format!("{base}/v1/{workspace}/integrations/{integration}/jwks.json"))
}

/// Whether this kind of authentication signs assertions.
const fn signs(kind: AuthKind) -> bool {
    matches!(SecretKind::of(kind), SecretKind::PrivateKey)
}

/// The algorithm of a new key for this authentication. `None` if the authentication does not take it.
fn algorithm_for(auth: &AuthConfig, asked: Option<&str>) -> Option<String> {
    let (usual, taken): (&str, &[&str]) = match auth.kind {
        AuthKind::GcpWif => ("RS256", &["RS256"]),
        AuthKind::SmartBackendServices => ("RS384", &["RS384", "ES384"]),
        _ => ("RS384", &["RS256", "RS384", "ES384"]),
    };
    let usual = auth.assertion_algorithm.as_deref().filter(|named| taken.contains(named)).unwrap_or(usual);
    let chosen = asked.unwrap_or(usual);
    taken.contains(&chosen).then(|| chosen.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_gets_an_algorithm_that_its_authentication_takes() {
        for (kind, configured, asked, chosen) in [
            ("smart_backend_services", None, None, Some("RS384")),
            ("smart_backend_services", Some("ES384"), None, Some("ES384")),
            ("smart_backend_services", Some("ES384"), Some("RS384"), Some("RS384")),
            ("smart_backend_services", None, Some("RS256"), None),
            ("gcp_wif", Some("ES384"), None, Some("RS256")),
            ("gcp_wif", None, Some("ES384"), None),
            ("oauth2_jwt_bearer", Some("RS256"), None, Some("RS256")),
            ("oauth2_jwt_bearer", None, Some("ES384"), Some("ES384")),
        ] {
            let auth = json!({ "type": kind, "assertion_algorithm": configured });
            let auth: AuthConfig = serde_json::from_value(auth).unwrap();
            assert_eq!(algorithm_for(&auth, asked).as_deref(), chosen, "{kind} {configured:?} {asked:?}");
        }
    }
}

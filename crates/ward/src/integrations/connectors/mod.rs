//! The ten connectors: one file per vendor with the facts that its public documents give, and the integration that
//! provisioning seeds from them. The pages below `docs/connectors/` say what was read where. Uncertain facts are part
//! of the description that the operator reads, and every integration starts disabled.

mod allscripts;
mod athenahealth;
mod cerner;
mod charmhealth;
mod eclinicalworks;
mod epic;
mod facts;
mod fhir_store;
mod hubspot;
mod meditab;
mod revolution;

use super::delivery::DeliverySettings;
use super::{AuthConfig, AuthKind, Endpoint, IntegrationConfig, Mcp};
use facts::Connector;

pub use facts::Takes;

/// The connectors, in the order of the contract's `ConnectorType`.
const CONNECTORS: [Connector; 10] = [
    revolution::CONNECTOR,
    epic::CONNECTOR,
    cerner::CONNECTOR,
    allscripts::CONNECTOR,
    fhir_store::CONNECTOR,
    hubspot::CONNECTOR,
    athenahealth::CONNECTOR,
    charmhealth::CONNECTOR,
    eclinicalworks::CONNECTOR,
    meditab::CONNECTOR,
];

/// Whether a name is a connector's, and so reserved for its integration.
pub fn is_connector(name: &str) -> bool {
    CONNECTORS.iter().any(|connector| connector.name == name)
}

/// How the system of this connector takes a call. `None` for a name that is no connector's.
pub fn takes(name: &str) -> Option<Takes> {
    CONNECTORS.iter().find(|connector| connector.name == name).map(|connector| connector.takes)
}

/// The integration that provisioning seeds for a connector. It is disabled, because each lacks something
/// that only the operator has.
pub fn default_of(name: &str) -> Option<IntegrationConfig> {
    let connector = CONNECTORS.iter().find(|connector| connector.name == name)?;
    let owned = |scopes: &[&str]| scopes.iter().map(|scope| (*scope).to_owned()).collect::<Vec<_>>();
    let google = connector.auth == AuthKind::GcpWif;
    let scopes = (!connector.scopes.is_empty()).then(|| owned(connector.scopes));
    let auth = AuthConfig {
        kind: connector.auth,
        header_name: None,
        client_id: None,
        client_auth_method: None,
        token_url: connector.token_url.map(str::to_owned),
        gcp_scopes: scopes.clone().filter(|_| google),
        scopes: scopes.filter(|_| !google),
        token_lifetime_seconds: 3600,
        assertion_algorithm: (connector.auth == AuthKind::SmartBackendServices).then(|| "RS384".to_owned()),
        assertion_audience: None,
        assertion_issuer: None,
        assertion_subject: None,
        assertion_kid: None,
        assertion_scopes_in_jwt: false,
        assertion_includes_jku: false,
        ssm_param_path: None,
        token_ssm_param_path: None,
        client_secret_ssm_param_path: None,
        private_key_ssm_param_path: None,
    };
    let (check, path) = connector.check;
    Some(IntegrationConfig {
        display_name: connector.display_name.to_owned(),
        protocol: connector.protocol,
        base_url: connector.base_url.to_owned(),
        auth: Some(auth),
        endpoints: vec![Endpoint::new(
            check,
            "GET",
            path,
            format!(
                "Shows whether the connection works. {} Register at the vendor: {}",
                connector.remark, connector.register
            ),
        )],
        mcp: Mcp::default(),
        delivery: DeliverySettings::default(),
        enabled: false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::rules;
    use super::*;

    #[test]
    fn what_is_seeded_would_be_accepted() {
        for connector in CONNECTORS {
            let config = default_of(connector.name).unwrap();
            assert!(!config.enabled, "{}", connector.name);
            assert_eq!(rules::base_url(&json!(config.base_url)), [], "{}", connector.name);
            if let Some(token_url) = connector.token_url {
                assert_eq!(rules::token_url(&json!(token_url)), [], "{}", connector.name);
            }
            for endpoint in &config.endpoints {
                assert_eq!(rules::path(&json!(endpoint.path)), [], "{}", connector.name);
                assert_eq!(rules::endpoint(&json!(endpoint)), [], "{}", connector.name);
                assert!(endpoint.description.contains("NOT CERTAIN"), "{}", connector.name);
            }
        }
    }
}

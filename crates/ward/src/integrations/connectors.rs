//! The integrations that provisioning seeds, by connector. The facts and doubts are those of
//! `docs/operate/integrations.md`. Uncertain facts about a vendor are part of the description that the operator
//! reads, and every integration starts disabled.

use super::{AuthConfig, AuthKind, Config, Endpoint, Mcp, Protocol};

/// The known facts about one vendor.
struct Connector {
    name: &'static str,
    display_name: &'static str,
    protocol: Protocol,
    base_url: &'static str,
    auth: AuthKind,
    token_url: Option<&'static str>,
    scopes: &'static [&'static str],
    /// The name and path of a harmless call that shows whether the connection works.
    check: (&'static str, &'static str),
    /// The missing settings and the uncertain facts.
    remark: &'static str,
}

const FHIR_CHECK: (&str, &str) = ("capabilities", "/metadata");

/// All ten connectors. Sources: the vendors' published capability statements and documentation.
const CONNECTORS: [Connector; 10] = [
    Connector {
        name: "revolution",
        display_name: "RevolutionEHR",
        protocol: Protocol::Fhir,
        base_url: "https://revolutionehr.dynamicfhir.com/fhir/revolutionehr/{practice}/r4",
        auth: AuthKind::SmartBackendServices,
        token_url: None,
        scopes: &[],
        check: FHIR_CHECK,
        remark: "Fill in the practice. NOT CERTAIN: the base URL is from public endpoint lists, the kind of \
                 authentication is assumed, and whether anything can be written is not known. Ask the vendor first.",
    },
    Connector {
        name: "epic",
        display_name: "Epic",
        protocol: Protocol::Fhir,
        base_url: "https://{host}/{instance}/api/FHIR/R4",
        auth: AuthKind::SmartBackendServices,
        token_url: None,
        scopes: &[],
        check: FHIR_CHECK,
        remark: "Fill in host and instance, and the client id and private key (RS384) of the backend app registered with \
                 Epic. Scopes are fixed at registration. Certain: DocumentReference and Communication can be created; \
                 Encounter is read-only; there is no conditional create. NOT CERTAIN: which elements an organization \
                 requires of a DocumentReference.",
    },
    Connector {
        name: "cerner",
        display_name: "Oracle Health (Cerner)",
        protocol: Protocol::Fhir,
        base_url: "https://fhir-ehr.cerner.com/r4/{tenant}",
        auth: AuthKind::SmartBackendServices,
        token_url: Some(
            "https://authorization.cerner.com/tenants/{tenant}/hosts/{host}/protocols/oauth2/profiles/smart-v1/token",
        ),
        scopes: &["system/DocumentReference.write"],
        check: FHIR_CHECK,
        remark: "Fill in the tenant (twice) and the host of the token URL, client id and private key (RS384 or ES384); a \
                 client secret works too. Certain: DocumentReference, Communication and Encounter can be created; \
                 unknown fields are refused with 422. NOT CERTAIN: rate limits, which are not published.",
    },
    Connector {
        name: "allscripts",
        display_name: "Veradigm (Allscripts)",
        protocol: Protocol::Fhir,
        base_url: "https://{host}/fhirroute/fhir/{tenant}",
        auth: AuthKind::SmartBackendServices,
        token_url: Some("https://{host}/authorizationV2/{tenant}/connect/token"),
        scopes: &[],
        check: FHIR_CHECK,
        remark: "Fill in host and tenant in both URLs, client id and private key. NOT CERTAIN: the capability statement \
                 lists creating a DocumentReference, the vendor's portal calls the API read-only. Try it before going live.",
    },
    Connector {
        name: "fhir_store",
        display_name: "Google Cloud FHIR store",
        protocol: Protocol::Fhir,
        base_url: "https://healthcare.googleapis.com/v1/projects/{project}/locations/{location}/datasets/{dataset}/\
                   fhirStores/{store}/fhir",
        auth: AuthKind::GcpWif,
        token_url: Some("https://sts.googleapis.com/v1/token"),
        scopes: &["https://www.googleapis.com/auth/cloud-healthcare"],
        check: FHIR_CHECK,
        remark: "Fill in project, location, dataset and store; issuer, subject and provider \
                 (//iam.googleapis.com/projects/…) of the workload identity pool, and the private key (RS256). Certain: \
                 any resource can be created; conditional create goes by identifier only; literal references must \
                 resolve. NOT CERTAIN: the token exchange has not been tried against Google by Ward's tests.",
    },
    Connector {
        name: "hubspot",
        display_name: "HubSpot",
        protocol: Protocol::Rest,
        base_url: "https://api.hubapi.com",
        auth: AuthKind::BearerToken,
        token_url: None,
        scopes: &[],
        check: ("list_calls", "/crm/v3/objects/calls?limit=1"),
        remark: "Give the access token of a private app with crm.objects.contacts.write, and create the text property \
                 ward_call_id of calls, by which a call is found again. Certain: calls are created at \
                 /crm/v3/objects/calls, their duration in milliseconds; there is no idempotency key, so a call's id is \
                 searched for first. NOT CERTAIN: whether searching and this check need crm.objects.contacts.read as \
                 well; when the dated paths that are newer replace this one.",
    },
    Connector {
        name: "athenahealth",
        display_name: "athenahealth",
        protocol: Protocol::Rest,
        base_url: "https://api.platform.athenahealth.com/v1/{practiceid}",
        auth: AuthKind::ClientCredentials,
        token_url: Some("https://api.platform.athenahealth.com/oauth2/v1/token"),
        scopes: &["athena/service/Athenanet.MDP.*"],
        check: ("departments", "/departments?limit=1"),
        remark: "Fill in the practice id, client id and client secret. Certain: its FHIR side creates nothing but \
                 QuestionnaireResponse, and a patient case needs patient, department, provider and source, which a call \
                 does not have: calls are held, not written. NOT CERTAIN: the exact path of patient cases, and of this \
                 check.",
    },
    Connector {
        name: "charmhealth",
        display_name: "CharmHealth",
        protocol: Protocol::Fhir,
        base_url: "https://ehr2.charmtracker.com/api/ehr/v2/fhir",
        auth: AuthKind::SmartBackendServices,
        token_url: None,
        scopes: &[],
        check: FHIR_CHECK,
        remark: "Fill in client id and private key, and token_url (it ends in /oauth/v2/token) if it is not discovered. \
                 NOT CERTAIN: only reading and searching are documented; an older version also wants an api_key header.",
    },
    Connector {
        name: "eclinicalworks",
        display_name: "eClinicalWorks",
        protocol: Protocol::Fhir,
        base_url: "https://fhir4.eclinicalworks.com/fhir/r4/{practice_code}",
        auth: AuthKind::SmartBackendServices,
        token_url: Some("https://oauthserver.eclinicalworks.com/oauth/oauth2/token"),
        scopes: &[],
        check: FHIR_CHECK,
        remark: "Fill in the practice code, client id and private key (RS384 only). Certain: 250 requests a minute and \
                 practice, token requests counted. NOT CERTAIN: writing is gated; the capability statement lists \
                 creating a QuestionnaireResponse and nothing else.",
    },
    Connector {
        name: "meditab",
        display_name: "Meditab",
        protocol: Protocol::Fhir,
        base_url: "",
        auth: AuthKind::SmartBackendServices,
        token_url: None,
        scopes: &[],
        check: FHIR_CHECK,
        remark: "NOT CERTAIN: the base URL and the kind of authentication are not published, and only reading is \
                 documented. Ask the vendor, then set base_url and auth.",
    },
];

/// Whether a name is a connector's, and so reserved for its integration.
pub fn is_connector(name: &str) -> bool {
    CONNECTORS.iter().any(|connector| connector.name == name)
}

/// The integration that provisioning seeds for a connector. It is disabled, because each lacks something
/// that only the operator has.
pub fn default_of(name: &str) -> Option<Config> {
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
        ssm_param_path: None,
        token_ssm_param_path: None,
        client_secret_ssm_param_path: None,
        private_key_ssm_param_path: None,
    };
    let (check, path) = connector.check;
    Some(Config {
        display_name: connector.display_name.to_owned(),
        protocol: connector.protocol,
        base_url: connector.base_url.to_owned(),
        auth: Some(auth),
        endpoints: vec![Endpoint::new(
            check,
            "GET",
            path,
            format!("Shows whether the connection works. {}", connector.remark),
        )],
        mcp: Mcp::default(),
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

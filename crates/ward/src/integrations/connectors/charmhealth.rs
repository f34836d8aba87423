//! `CharmHealth`. `docs/connectors/charmhealth.md` names the sources.

use super::facts::{Connector, FHIR_CHECK, Takes};
use crate::integrations::{AuthKind, Protocol};

pub(super) const CONNECTOR: Connector = Connector {
    name: "charmhealth",
    display_name: "CharmHealth",
    protocol: Protocol::Fhir,
    base_url: "https://ehr2.charmtracker.com/api/ehr/v2/fhir",
    auth: AuthKind::SmartBackendServices,
    token_url: Some("https://ehr2.charmtracker.com/oauth/v2/token"),
    scopes: &[],
    check: FHIR_CHECK,
    takes: Takes::Nothing,
    register: "a backend app with the URL of the integration's JWK set.",
    remark: "Generate a key pair and set the client id. Calls are held: only reading and searching are documented. NOT \
             CERTAIN: whether a practice can grant a write; an older version also wants an api_key header.",
};

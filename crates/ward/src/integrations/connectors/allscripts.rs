//! Veradigm, formerly Allscripts. `docs/connectors/allscripts.md` names the sources.

use super::facts::{Connector, FHIR_CHECK, Takes};
use crate::integrations::{AuthKind, DocumentStatus, EncounterRule, Protocol};

pub(super) const CONNECTOR: Connector = Connector {
    name: "allscripts",
    display_name: "Veradigm (Allscripts)",
    protocol: Protocol::Fhir,
    base_url: "https://{host}/fhirroute/fhir/{tenant}",
    auth: AuthKind::SmartBackendServices,
    // It differs between installations, and the server names it.
    token_url: None,
    scopes: &["system/DocumentReference.read", "system/DocumentReference.write"],
    check: FHIR_CHECK,
    takes: Takes::Document(DocumentStatus::Preliminary, EncounterRule::Optional),
    register: "a backend app with these scopes and the URL of the integration's JWK set.",
    remark: "Fill in host and tenant, generate a key pair and set the client id. The token endpoint is discovered. NOT \
             CERTAIN: the capability statement lists creating a DocumentReference, the vendor's portal calls the API \
             read-only. Try it before going live.",
};

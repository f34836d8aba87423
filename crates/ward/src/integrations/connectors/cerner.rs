//! Oracle Health (Cerner) Millennium. `docs/connectors/cerner.md` names the sources.

use super::facts::{Connector, FHIR_CHECK, Takes};
use crate::integrations::{AuthKind, DocumentStatus, EncounterRule, Protocol};

pub(super) const CONNECTOR: Connector = Connector {
    name: "cerner",
    display_name: "Oracle Health (Cerner)",
    protocol: Protocol::Fhir,
    base_url: "https://fhir-ehr.cerner.com/r4/{tenant}",
    auth: AuthKind::SmartBackendServices,
    token_url: Some(
        "https://authorization.cerner.com/tenants/{tenant}/hosts/{host}/protocols/oauth2/profiles/smart-v1/token",
    ),
    // The search for a call whose outcome is unknown reads.
    scopes: &["system/DocumentReference.read", "system/DocumentReference.write", "system/Encounter.read"],
    check: FHIR_CHECK,
    // The service takes final documents only.
    takes: Takes::Document(DocumentStatus::Final, EncounterRule::Optional),
    register: "a system account with these scopes and the URL of the integration's JWK set.",
    remark: "Fill in the tenant (twice) and the host of the token URL, generate a key pair (RS384 or ES384) and set the client \
             id; a client secret works too. Certain: a document needs a patient, a type and a status of `final`; text/plain is \
             accepted. NOT CERTAIN: whether the identifier is kept and searched, and the rate limits, which are not published.",
};

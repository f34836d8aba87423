//! Epic. `docs/connectors/epic.md` names the sources.

use super::facts::{Connector, FHIR_CHECK, Takes};
use crate::integrations::{AuthKind, DocumentStatus, EncounterRule, Protocol};

pub(super) const CONNECTOR: Connector = Connector {
    name: "epic",
    display_name: "Epic",
    protocol: Protocol::Fhir,
    base_url: "https://{host}/{instance}/api/FHIR/R4",
    auth: AuthKind::SmartBackendServices,
    token_url: None,
    // A backend app gets the scopes of its registration.
    scopes: &[],
    check: FHIR_CHECK,
    takes: Takes::Document(DocumentStatus::Preliminary, EncounterRule::LookUp),
    register: "a backend app with DocumentReference.Create (Clinical Notes) and .Search, and Encounter.Search; and the URL of the \
               integration's JWK set, because Epic takes keys in no other way.",
    remark: "Fill in host and instance, generate a key pair (RS384 or ES384), and set the client id of the backend app. \
             Certain: a note needs a patient and an encounter of the same patient; Encounter is read-only; there is no \
             conditional create. NOT CERTAIN: which further elements an organization requires.",
};

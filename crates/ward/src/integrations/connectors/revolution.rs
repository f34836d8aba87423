//! `RevolutionEHR`, an EHR for optometry. `docs/connectors/revolution.md` names the sources.

use super::facts::{Connector, FHIR_CHECK, Takes};
use crate::integrations::{AuthKind, Protocol};

pub(super) const CONNECTOR: Connector = Connector {
    name: "revolution",
    display_name: "RevolutionEHR",
    protocol: Protocol::Fhir,
    base_url: "https://revolutionehr.dynamicfhir.com/fhir/revolutionehr/{practice}/r4",
    auth: AuthKind::SmartBackendServices,
    token_url: None,
    scopes: &[],
    check: FHIR_CHECK,
    takes: Takes::Nothing,
    register: "the URL of the integration's JWK set, if the vendor offers backend services.",
    remark: "Fill in the practice. Calls are held: no public document describes a write. NOT CERTAIN: the base URL is from \
             public endpoint lists, and the kind of authentication is assumed. Ask the vendor first.",
};

//! Meditab. `docs/connectors/meditab.md` names the sources.

use super::facts::{Connector, FHIR_CHECK, Takes};
use crate::integrations::{AuthKind, Protocol};

pub(super) const CONNECTOR: Connector = Connector {
    name: "meditab",
    display_name: "Meditab",
    protocol: Protocol::Fhir,
    base_url: "",
    auth: AuthKind::SmartBackendServices,
    token_url: None,
    scopes: &[],
    check: FHIR_CHECK,
    takes: Takes::Nothing,
    register: "what the vendor says.",
    remark: "Calls are held: only reading is documented. NOT CERTAIN: the base URL and the kind of authentication are not \
             published. Ask the vendor, then set base_url and auth.",
};

//! eClinicalWorks. `docs/connectors/eclinicalworks.md` names the sources.

use super::facts::{Connector, FHIR_CHECK, Takes};
use crate::integrations::{AuthKind, Protocol};

pub(super) const CONNECTOR: Connector = Connector {
    name: "eclinicalworks",
    display_name: "eClinicalWorks",
    protocol: Protocol::Fhir,
    base_url: "https://fhir4.eclinicalworks.com/fhir/r4/{practice_code}",
    auth: AuthKind::SmartBackendServices,
    token_url: Some("https://oauthserver.eclinicalworks.com/oauth/oauth2/token"),
    scopes: &[],
    check: FHIR_CHECK,
    takes: Takes::Nothing,
    register: "a backend app with the URL of the integration's JWK set, which the vendor must allow.",
    remark: "Fill in the practice code, generate a key pair (RS384 only) and set the client id. Calls are held: the capability \
             statement lists creating a QuestionnaireResponse and nothing else. Certain: 250 requests a minute and practice, \
             token requests counted. NOT CERTAIN: whether a contract opens more.",
};

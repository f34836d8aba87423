//! A FHIR store of the Google Cloud Healthcare API, or any plain FHIR R4 server. `docs/connectors/fhir_store.md` names
//! the sources.

use super::facts::{Connector, FHIR_CHECK, Takes};
use crate::integrations::{AuthKind, Protocol};

pub(super) const CONNECTOR: Connector = Connector {
    name: "fhir_store",
    display_name: "Google Cloud FHIR store",
    protocol: Protocol::Fhir,
    base_url: "https://healthcare.googleapis.com/v1/projects/{project}/locations/{location}/datasets/{dataset}/\
               fhirStores/{store}/fhir",
    auth: AuthKind::GcpWif,
    token_url: Some("https://sts.googleapis.com/v1/token"),
    scopes: &["https://www.googleapis.com/auth/cloud-healthcare"],
    check: FHIR_CHECK,
    takes: Takes::Communication,
    register: "a workload identity pool with an OIDC provider that has the integration's JWK set as its keys; or a service \
               account, with type oauth2_jwt_bearer and its key file.",
    remark: "Fill in project, location, dataset and store; issuer, subject and provider \
             (//iam.googleapis.com/projects/…) of the workload identity pool; and generate a key pair (RS256). Certain: \
             any resource can be created; conditional create goes by identifier only; literal references must \
             resolve. NOT CERTAIN: the token exchange has not been tried against Google by Ward's tests.",
};

//! athenahealth. `docs/connectors/athenahealth.md` names the sources.

use super::facts::{Connector, Takes};
use crate::integrations::{AuthKind, Protocol};

pub(super) const CONNECTOR: Connector = Connector {
    name: "athenahealth",
    display_name: "athenahealth",
    protocol: Protocol::Rest,
    base_url: "https://api.platform.athenahealth.com/v1/{practiceid}",
    auth: AuthKind::ClientCredentials,
    token_url: Some("https://api.platform.athenahealth.com/oauth2/v1/token"),
    scopes: &["athena/service/Athenanet.MDP.*"],
    check: ("departments", "/departments?limit=1"),
    takes: Takes::PatientCase,
    register: "an app with the scope athena/service/Athenanet.MDP.* and the practice's consent.",
    remark: "Fill in the practice id, client id and client secret, and set delivery.department_id and delivery.provider_id. \
             Certain: a patient case needs patient, department, provider and source; its note has 4,000 characters at most; \
             the FHIR side creates no note. NOT CERTAIN: whether the list of cases shows the note by which a call is \
             found again, and the path of this check.",
};

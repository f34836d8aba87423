//! `HubSpot`, a CRM. `docs/connectors/hubspot.md` names the sources.

use super::facts::{Connector, Takes};
use crate::integrations::{AuthKind, Protocol};

pub(super) const CONNECTOR: Connector = Connector {
    name: "hubspot",
    display_name: "HubSpot",
    protocol: Protocol::Rest,
    base_url: "https://api.hubapi.com",
    auth: AuthKind::BearerToken,
    token_url: None,
    scopes: &[],
    check: ("list_calls", "/crm/v3/objects/calls?limit=1"),
    takes: Takes::HubSpotCall,
    register: "a private app with crm.objects.contacts.read and crm.objects.contacts.write, and the text property ward_call_id of \
               calls, by which a call is found again.",
    remark: "Give the access token of the private app. Certain: calls are created at /crm/v3/objects/calls, their duration in \
             milliseconds; there is no idempotency key, so a call's id is searched for. A call belongs to the one contact \
             that has the caller's number. NOT CERTAIN: in which spelling contacts keep their numbers; when the dated \
             paths that are newer replace this one.",
};

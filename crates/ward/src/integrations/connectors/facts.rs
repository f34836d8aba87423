//! The known facts about a vendor.

use crate::integrations::{AuthKind, DocumentStatus, EncounterRule, Protocol};

/// The known facts about one vendor.
pub struct Connector {
    pub name: &'static str,
    pub display_name: &'static str,
    pub protocol: Protocol,
    pub base_url: &'static str,
    pub auth: AuthKind,
    /// The token endpoint. `None` if there is none, or if the server's smart-configuration names it.
    pub token_url: Option<&'static str>,
    pub scopes: &'static [&'static str],
    /// The name and path of a harmless call that shows whether the connection works.
    pub check: (&'static str, &'static str),
    /// How the vendor's system takes a call.
    pub takes: Takes,
    /// The data that a person registers at the vendor.
    pub register: &'static str,
    /// The missing settings and the uncertain facts.
    pub remark: &'static str,
}

/// How a vendor's system takes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A FHIR R4 `Communication`, with or without a patient.
    Communication,
    /// A FHIR R4 `DocumentReference` in a patient's chart, with this status and this need of an encounter unless the
    /// integration's settings say otherwise.
    Document(DocumentStatus, EncounterRule),
    /// A call object of `HubSpot`, with or without a contact.
    HubSpotCall,
    /// A patient case of athenahealth, through its API beside FHIR.
    PatientCase,
    /// Nothing: the vendor's public documents describe no write that could hold a call.
    Nothing,
}

/// The check of a FHIR server.
pub const FHIR_CHECK: (&str, &str) = ("capabilities", "/metadata");

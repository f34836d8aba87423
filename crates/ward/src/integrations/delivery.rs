//! How calls are written to the EHR of an integration. An absent field is as the connector usually does.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverySettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_status: Option<DocumentStatus>,
    /// The need of an encounter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encounter: Option<EncounterRule>,
    /// The department of patient cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub department_id: Option<String>,
    /// The provider of patient cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// The source of patient cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_source: Option<String>,
    /// The subclass of patient cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_subclass: Option<String>,
    /// Whether a call is tied to the contact that has the other party's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub associate_contacts: Option<bool>,
}

/// The status of a document in a chart (FHIR R4, `composition-status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentStatus {
    /// A person has yet to review it.
    Preliminary,
    /// It is complete, as if a person had signed it.
    Final,
}

/// The need of an encounter of the patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncounterRule {
    /// A reported encounter is used, and none is needed.
    Optional,
    /// A call waits until its encounter is reported.
    Reported,
    /// An encounter that was not reported is looked up. A call waits unless there is exactly one during the call.
    LookUp,
}

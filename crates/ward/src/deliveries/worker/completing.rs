//! The last additions to a note before it is sent: the integration's settings, and what is looked up in the EHR.

use tokio::time::Instant;
use ward_ehr::delivery::{CallNote, Filing, Form, Target, Verdict};
use ward_ehr::look_up::LookedUp;

use super::Worker;
use crate::deliveries::Missing;
use crate::deliveries::outbox::Leased;
use crate::integrations::{self, Connection, DocumentStatus, EncounterRule, Takes};

/// The reason why a note cannot be sent now. Nothing of it was sent.
pub(super) enum Stopped {
    /// A person has to report this fact.
    Missing(Missing),
    /// A look-up failed.
    Failed(Verdict),
}

impl Worker {
    /// The note as the integration's settings and the EHR complete it.
    pub(super) async fn completed(
        &self,
        connection: &Connection,
        form: Form,
        mut note: CallNote,
        leased: &Leased,
    ) -> Result<CallNote, Stopped> {
        let settings = &connection.delivery;
        let (status, rule) = match integrations::takes(&connection.name) {
            Some(Takes::Document(status, rule)) => (status, rule),
            _ => (DocumentStatus::Final, EncounterRule::Optional),
        };
        note.filing = Filing {
            preliminary: settings.document_status.unwrap_or(status) == DocumentStatus::Preliminary,
            department: settings.department_id.clone(),
            provider: settings.provider_id.clone(),
            source: settings.document_source.clone(),
            subclass: settings.document_subclass.clone(),
        };
        if leased.is_check {
            // A search for duplicates sends nothing that a look-up could add.
            return Ok(note);
        }
        let maybe_sent = leased.maybe_sent;
        let rule = settings.encounter.unwrap_or(rule);
        let looks_up = match form {
            Form::DocumentReference if note.encounter.is_none() => match rule {
                EncounterRule::Optional => false,
                EncounterRule::Reported => return Err(Stopped::Missing(Missing::Encounter)),
                EncounterRule::LookUp => true,
            },
            Form::HubSpotCall => note.patient.is_none() && settings.associate_contacts.unwrap_or(true),
            _ => false,
        };
        if !looks_up {
            return Ok(note);
        }
        let auth = match &connection.auth {
            Ok(auth) => auth.as_ref(),
            Err(why) => return Err(Stopped::Failed(Verdict::Misconfigured { why: why.clone() })),
        };
        let (outbound, tokens) = (self.outbound(), self.tokens());
        let target = Target { outbound, tokens, auth, base_url: &connection.base_url, form };
        let deadline = Instant::now() + outbound.limits().total_time;
        if form == Form::HubSpotCall {
            return match target.contact(&note, deadline).await {
                LookedUp::One(contact) => Ok(CallNote { patient: Some(contact), ..note }),
                // A call without a contact is still a call, and Ward never chooses one of several contacts.
                LookedUp::Nothing | LookedUp::Several => Ok(note),
                LookedUp::Failed(verdict) => Err(Stopped::Failed(marked(verdict, maybe_sent))),
            };
        }
        match target.encounter(&note, deadline).await {
            LookedUp::One(encounter) => Ok(CallNote { encounter: Some(encounter), ..note }),
            LookedUp::Nothing | LookedUp::Several => Err(Stopped::Missing(Missing::Encounter)),
            LookedUp::Failed(verdict) => Err(Stopped::Failed(marked(verdict, maybe_sent))),
        }
    }
}

/// The verdict of a look-up, with the mark of an earlier attempt that may have arrived.
fn marked(verdict: Verdict, maybe_sent: bool) -> Verdict {
    match verdict {
        Verdict::Again { status, after, why, words, .. } => {
            Verdict::Again { status, after, maybe_sent, why, words }
        }
        other => other,
    }
}

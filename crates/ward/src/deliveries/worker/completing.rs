//! The last additions to a note before it is sent: what is looked up in the EHR.

use tokio::time::Instant;
use ward_ehr::delivery::{CallNote, Form, Target, Verdict};
use ward_ehr::look_up::LookedUp;

use super::Worker;
use crate::deliveries::Missing;
use crate::deliveries::note::{self, Sought};
use crate::deliveries::outbox::Leased;
use crate::integrations::Connection;

/// The reason why a note cannot be sent now. Nothing of it was sent.
pub(super) enum Stopped {
    /// A person has to report this fact.
    Missing(Missing),
    Failed(Verdict),
}

impl Worker {
    /// The note as the EHR completes it.
    pub(super) async fn completed(
        &self,
        connection: &Connection,
        form: Form,
        note: CallNote,
        leased: &Leased,
    ) -> Result<CallNote, Stopped> {
        if leased.is_check {
            // A search for duplicates sends nothing that a look-up could add.
            return Ok(note);
        }
        let maybe_sent = leased.maybe_sent;
        match note::sought((&connection.name, &connection.delivery), form, &note) {
            Sought::Nothing => return Ok(note),
            Sought::Unreported => return Err(Stopped::Missing(Missing::Encounter)),
            Sought::Encounter | Sought::Contact => {}
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

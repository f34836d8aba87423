//! The look-ups before a note is sent, which complete it.

use tokio::time::Instant;
use ward_db::Timestamp;
use ward_ehr::delivery::{CallNote, Form, Target, Verdict};
use ward_ehr::look_up::{LookedUp, UNPROVEN};
use ward_ehr::matching::PatientSought;

use super::Worker;
use crate::audit::{Actor, Write};
use crate::calls::{self, CallRecord, patients};
use crate::context::Context;
use crate::deliveries::matching::{self, Because, Matched, Part, Review};
use crate::deliveries::note::{self, Sought};
use crate::deliveries::outbox::{Lane, Leased};
use crate::deliveries::{Missing, backoff};
use crate::error::ApiError;
use crate::integrations::{Connection, PatientRule};

/// The reason why a note cannot be sent now. Nothing of it was sent.
pub(super) enum Stopped {
    /// A person has to decide, so the delivery is held.
    Review(Review),
    Failed(Verdict),
}

/// The facts with which a look-up asks the EHR.
struct Asked {
    matched: Matched,
    facts: patients::Facts,
    /// The last change of these facts.
    at: Option<Timestamp>,
}

impl Worker {
    /// The note as the EHR completes it.
    pub(super) async fn completed(
        &self,
        (lane, connection, form): (&Lane, &Connection, Form),
        note: CallNote,
        leased: &Leased,
        call: &CallRecord,
    ) -> Result<CallNote, Stopped> {
        if leased.is_check {
            // A search for duplicates sends nothing that a look-up could add.
            return Ok(note);
        }
        let rule = note::patient_rule(form, &connection.delivery);
        let lacks_patient = note.patient.is_none() && (rule != PatientRule::Reported || form.needs_patient());
        let sought = note::sought((&connection.name, &connection.delivery), form, &note);
        if !lacks_patient && sought == Sought::Nothing {
            return Ok(note);
        }
        let mut asked = self.asked(lane, leased).await.map_err(Stopped::Failed)?;
        let mut note = note;
        if lacks_patient {
            // A stored match stays, whatever the settings are now: an earlier attempt may have gone into its chart.
            note.patient.clone_from(&asked.matched.patient);
        }
        let not_reported = |needs| Err(Stopped::Review(Review::unasked(needs, Because::NotReported)));
        let lacks_patient = lacks_patient && note.patient.is_none();
        match sought {
            _ if lacks_patient && rule == PatientRule::Reported => return not_reported(Missing::Patient),
            Sought::Unreported if !lacks_patient => return not_reported(Missing::Encounter),
            Sought::Nothing if !lacks_patient => return Ok(note),
            _ => {}
        }
        let auth = match &connection.auth {
            Ok(auth) => auth.as_ref(),
            Err(why) => return Err(Stopped::Failed(Verdict::Misconfigured { why: why.clone() })),
        };
        let (outbound, tokens) = (self.outbound(), self.tokens());
        let target = Target { outbound, tokens, auth, base_url: &connection.base_url, form };
        if sought == Sought::Contact {
            let deadline = Instant::now() + outbound.limits().total_time;
            return match target.contact(&note, deadline).await {
                LookedUp::One(contact) => Ok(CallNote { patient: Some(contact), ..note }),
                // A call without a contact is still a call, and Ward never chooses one of several contacts.
                LookedUp::Nothing(_) | LookedUp::Several(_) => Ok(note),
                LookedUp::Failed(verdict) => Err(Stopped::Failed(marked(verdict, leased.maybe_sent))),
            };
        }
        if lacks_patient {
            note.patient = Some(self.patient(&target, rule, (lane, leased, call), &mut asked).await?);
        }
        self.with_encounter(&target, connection, (lane, leased), note, asked).await
    }

    /// The stored match of a delivery, and the facts about its patient.
    async fn asked(&self, lane: &Lane, leased: &Leased) -> Result<Asked, Verdict> {
        let (workspace, delivery, call) = (lane.key.0, leased.id, leased.call);
        let read = self.app.db.read("sync.matched", move |tx| {
            let matched = matching::stored(tx, workspace, delivery)?;
            Ok((matched, patients::stored(tx, workspace, call)?))
        });
        let (matched, stored) = read.await.map_err(|error: ward_db::Error| {
            tracing::error!(%error, "cannot read the match of a delivery; will retry");
            not_now(leased)
        })?;
        let vault = &self.app.vault;
        let matched = matching::opened(vault, (workspace, delivery, Part::Matched), matched.as_deref());
        let facts = stored.as_ref().map(|(facts, _)| facts.as_slice());
        let facts = patients::opened(vault, (workspace, call), facts);
        Ok(Asked { matched, facts, at: stored.map(|(_, at)| at) })
    }

    /// The patient of a call whose report names none.
    async fn patient(
        &self,
        target: &Target<'_>,
        rule: PatientRule,
        (lane, leased, call): (&Lane, &Leased, &CallRecord),
        asked: &mut Asked,
    ) -> Result<String, Stopped> {
        let needs = Missing::Patient;
        let unasked = |because| {
            let review = Review { asked_with: Some(asked.at), ..Review::unasked(needs, because) };
            Stopped::Review(review)
        };
        let phone = asked.facts.phone.clone().or_else(|| note::number_of(call));
        let Some(phone) = phone else { return Err(unasked(Because::NoNumber)) };
        let Some(birth_date) = asked.facts.birth_date.clone() else {
            return Err(unasked(Because::NoBirthDate));
        };
        let sought = PatientSought { phone, birth_date };
        let deadline = Instant::now() + self.outbound().limits().total_time;
        let (found, by) = match rule {
            PatientRule::Match => (target.match_patient(&sought, deadline).await, "match"),
            PatientRule::Search | PatientRule::Reported => {
                (target.search_patient(&sought, deadline).await, "search")
            }
        };
        let patient = self.one_of(found, needs, leased, asked.at)?;
        asked.matched = Matched { patient: Some(patient.clone()), encounter: None };
        self.keep(lane, leased, asked, (needs, by)).await?;
        Ok(patient)
    }

    /// The note with the encounter that it needs.
    async fn with_encounter(
        &self,
        target: &Target<'_>,
        connection: &Connection,
        (lane, leased): (&Lane, &Leased),
        note: CallNote,
        mut asked: Asked,
    ) -> Result<CallNote, Stopped> {
        let needs = Missing::Encounter;
        match note::sought((&connection.name, &connection.delivery), target.form, &note) {
            Sought::Encounter => {}
            Sought::Unreported => {
                return Err(Stopped::Review(Review::unasked(needs, Because::NotReported)));
            }
            Sought::Nothing | Sought::Contact => return Ok(note),
        }
        let patient = note.patient.clone().unwrap_or_default();
        if let Some(known) = asked.matched.encounter_of(&patient) {
            return Ok(CallNote { encounter: Some(known.to_owned()), ..note });
        }
        let deadline = Instant::now() + self.outbound().limits().total_time;
        let found = target.encounter(&note, deadline).await;
        let sends_without = connection.delivery.send_without_encounter.unwrap_or(false);
        if sends_without && matches!(found, LookedUp::Nothing(_) | LookedUp::Several(_)) {
            return Ok(note);
        }
        let encounter = self.one_of(found, needs, leased, asked.at)?;
        asked.matched.encounter = Some((encounter.clone(), patient));
        self.keep(lane, leased, &asked, (needs, "search")).await?;
        Ok(CallNote { encounter: Some(encounter), ..note })
    }

    /// The only result of a look-up, or the reason why there is none.
    fn one_of(
        &self,
        found: LookedUp,
        needs: Missing,
        leased: &Leased,
        asked_at: Option<Timestamp>,
    ) -> Result<String, Stopped> {
        let (because, candidates) = match found {
            LookedUp::One(id) => return Ok(id),
            LookedUp::Nothing(others) if others.is_empty() => (Because::None, others),
            LookedUp::Nothing(others) => (Because::Uncertain, others),
            LookedUp::Several(candidates) => (Because::Several, candidates),
            LookedUp::Failed(Verdict::Again { why: UNPROVEN, .. }) if self.is_overdue(leased) => {
                // Only a person can find out, because the EHR answers without a result.
                (Because::Unproven, Vec::new())
            }
            LookedUp::Failed(verdict) => return Err(Stopped::Failed(marked(verdict, leased.maybe_sent))),
        };
        Err(Stopped::Review(Review { needs, because, candidates, asked_with: Some(asked_at) }))
    }

    fn is_overdue(&self, leased: &Leased) -> bool {
        self.app.clock.now() >= leased.tried_since.saturating_add(backoff::TRIED_FOR)
    }

    /// Stores a match before anything is sent, so that every retry goes into the same chart. A patient that became known in the
    /// meantime, and changed facts, end the attempt.
    async fn keep(
        &self,
        lane: &Lane,
        leased: &Leased,
        asked: &Asked,
        (found, by): (Missing, &'static str),
    ) -> Result<(), Stopped> {
        let (workspace, now) = (lane.key.0, self.app.clock.now());
        let (delivery, call, at) = (leased.id, leased.call, asked.at);
        let place = (workspace, delivery, Part::Matched);
        let Some(matched) = matching::seal(&self.app.vault, place, &asked.matched) else {
            let why = "a match cannot be stored without a master key".to_owned();
            return Err(Stopped::Failed(Verdict::Misconfigured { why }));
        };
        let kept = self.app.db.write("sync.match", move |tx| {
            let context = Context::of_time(now);
            // Requests take the workspace's row before a delivery's, and so must Ward itself.
            let write = &mut Write::begin(tx, workspace, Actor::NOBODY, &context)?;
            let present = calls::by_id(write, workspace, call)?;
            let is_known = present.is_none_or(|call| call.detail(found.detail()).is_some());
            if is_known || patients::changed_at(write, workspace, call)? != at {
                return Ok::<_, ApiError>(false);
            }
            matching::keep(write, delivery, &matched, (found, by))?;
            Ok(true)
        });
        match kept.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stopped::Failed(not_now(leased))),
            Err(error) => {
                tracing::error!(cause = ?error.cause(), "cannot store the match of a delivery; will retry");
                Err(Stopped::Failed(not_now(leased)))
            }
        }
    }
}

/// The outcome of an attempt whose facts have changed, or could not be read or stored.
const fn not_now(leased: &Leased) -> Verdict {
    let maybe_sent = leased.maybe_sent;
    Verdict::Again { status: None, after: None, maybe_sent, why: "conflict", words: None }
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

//! The requests of one attempt: a create, a search for duplicates, or an amendment.

use tokio::time::Instant;
use ward_ehr::delivery::{CallNote, Delivered, Form, SearchOutcome, Target, Verdict};

use super::Worker;
use super::tried::Tried;
use crate::deliveries::outbox::{Leased, Settled};
use crate::integrations::Connection;

impl Worker {
    pub(super) async fn send(
        &self,
        connection: &Connection,
        form: Form,
        told: &CallNote,
        leased: &Leased,
    ) -> Tried {
        let auth = match &connection.auth {
            Ok(auth) => auth.as_ref(),
            Err(why) => {
                let delivered = Delivered::without_answer(Verdict::Misconfigured { why: why.clone() });
                return Tried::of(leased, delivered, self.app.clock.now());
            }
        };
        let target = Target {
            outbound: self.outbound(),
            tokens: self.tokens(),
            auth,
            base_url: &connection.base_url,
            form,
        };
        let deadline = Instant::now() + self.outbound().limits().total_time;
        if leased.is_check {
            let told = leased.amendments.numbered(form, told.clone());
            let looked: SearchOutcome = target.look(&told, deadline).await;
            return Tried::of_check(leased, looked, self.app.clock.now());
        }
        if leased.amendments.wanted.is_some() {
            return self.amend(&target, told, leased).await;
        }
        let delivered = target.deliver(told, leased.maybe_sent, deadline).await;
        Tried::of(leased, delivered, self.app.clock.now())
    }

    /// Writes an amendment: a further document that replaces the former one, or new content of the same resource.
    async fn amend(&self, target: &Target<'_>, told: &CallNote, leased: &Leased) -> Tried {
        let (now, limit) = (self.app.clock.now(), self.outbound().limits().total_time);
        let held = |reason| Tried::unsent(Settled::Held(reason, true), "held");
        if target.form == Form::PatientCase {
            return held("no_amendment");
        }
        let place = match leased.amendments.of.clone() {
            Some(place) => place,
            // The EHR named no location at the create, so the record is searched for.
            None => match target.look(told, Instant::now() + limit).await.verdict {
                Some(Verdict::Synced { location: Some(place) }) => place,
                Some(Verdict::Synced { location: None }) | None => return held("cannot_tell"),
                Some(other) => return Tried::of(leased, Delivered::without_answer(other), now),
            },
        };
        let deadline = Instant::now() + limit;
        let delivered = match target.form {
            Form::DocumentReference if place.starts_with("DocumentReference/") => {
                let mut told = leased.amendments.numbered(target.form, told.clone());
                told.replaces = Some(place);
                target.deliver(&told, leased.is_uncertain(), deadline).await
            }
            Form::DocumentReference => return held("cannot_tell"),
            Form::Communication | Form::HubSpotCall | Form::PatientCase => {
                target.update(told, &place, deadline).await
            }
        };
        Tried::of(leased, delivered, self.app.clock.now())
    }
}

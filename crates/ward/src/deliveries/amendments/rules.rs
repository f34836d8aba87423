//! The pure rules of amendments: their numbers, and the identifiers of their documents.

use ward_ehr::delivery::{CallNote, Form};

/// The numbers of the amendments of one delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amendments {
    /// The number of the amendment that is to be written.
    pub wanted: Option<i64>,
    /// The number of the last amendment that the EHR has.
    pub done: Option<i64>,
    /// The location of the record that the wanted amendment changes or replaces.
    pub of: Option<String>,
}

impl Amendments {
    /// The amendments after an attempt that has arrived or not.
    pub fn after(&self, has_arrived: bool) -> Self {
        match self.wanted {
            Some(number) if has_arrived => Self { wanted: None, done: Some(number), of: self.of.clone() },
            _ => self.clone(),
        }
    }

    /// The number of the amendment that the present content is, 0 for the first record.
    fn number(&self) -> i64 {
        self.wanted.or(self.done).unwrap_or(0)
    }

    /// The note with the identifier of the present amendment. Only a document needs one, because an amendment creates a further
    /// document.
    pub fn numbered(&self, form: Form, mut told: CallNote) -> CallNote {
        if form == Form::DocumentReference && self.number() > 0 {
            told.id = format!("{}.{}", told.id, self.number());
            told.replaces = self.of.clone().filter(|_| self.wanted.is_some());
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amendment_counts_once_it_has_arrived() {
        let first = Amendments { wanted: Some(1), done: None, of: Some("DocumentReference/1".to_owned()) };
        assert_eq!(first.after(false), first);
        let done = first.after(true);
        assert_eq!((done.wanted, done.done, done.number()), (None, Some(1), 1));
        assert_eq!(Amendments::default().after(true), Amendments::default());
    }
}

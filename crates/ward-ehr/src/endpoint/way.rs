//! Ways to values: names with dots between, `entry.resource.id`. A list is walked item by item, or by index where the
//! step is a number.

use serde_json::Value;

/// The longest way, characters.
pub const LONGEST_WAY: usize = 256;
/// The most steps of a way.
pub const MOST_STEPS: usize = 32;
/// How many values may be looked at for one answer, all ways together: about a tenth of a second's work.
const MOST_VISITS: usize = 4_000_000;
/// The least that a value counts when it is copied, bytes: an empty one takes memory too.
const LEAST: usize = 8;

/// A way, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way<'w>(Vec<&'w str>);

impl<'w> Way<'w> {
    /// Reads a way. `None`: it is none, because a step is empty, or because of its length.
    pub fn read(text: &'w str) -> Option<Self> {
        if text.chars().count() > LONGEST_WAY {
            return None;
        }
        let steps: Vec<&str> = text.split('.').collect();
        let fine = steps.len() <= MOST_STEPS && steps.iter().all(|step| !step.is_empty());
        fine.then_some(Self(steps))
    }

    /// Its steps, at least one.
    pub fn steps(&self) -> &[&'w str] {
        &self.0
    }
}

/// More was to be made of an answer than may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

/// What a way led to: a value as it stands, or what a list's items gave.
pub enum Found<'v> {
    One(&'v Value),
    Many(Vec<Found<'v>>),
}

/// What may still be looked at and written. It ends, whatever was configured and whatever was answered.
pub struct Budget {
    visits: usize,
    bytes: usize,
}

impl Budget {
    /// A budget for writing this many bytes.
    pub const fn of(bytes: usize) -> Self {
        Self { visits: MOST_VISITS, bytes }
    }

    fn visit(&mut self) -> Result<(), TooMuch> {
        self.visits = self.visits.checked_sub(1).ok_or(TooMuch)?;
        Ok(())
    }

    /// Takes these bytes off.
    pub fn spend(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(TooMuch)?;
        Ok(())
    }

    /// Goes the way.
    pub fn look_up<'v>(&mut self, value: &'v Value, way: &Way<'_>) -> Result<Option<Found<'v>>, TooMuch> {
        let mut found = Found::One(value);
        for step in way.steps() {
            match self.step(found, step)? {
                Some(next) => found = next,
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    fn step<'v>(&mut self, from: Found<'v>, step: &str) -> Result<Option<Found<'v>>, TooMuch> {
        self.visit()?;
        match from {
            Found::One(Value::Object(fields)) => Ok(fields.get(step).map(Found::One)),
            Found::One(Value::Array(items)) => self.step_into(items.iter().map(Found::One), step),
            Found::Many(items) => self.step_into(items.into_iter(), step),
            Found::One(_) => Ok(None),
        }
    }

    /// Goes into a list. It goes no deeper than what was answered is nested, which its parser bounds.
    fn step_into<'v>(
        &mut self,
        mut items: impl Iterator<Item = Found<'v>>,
        step: &str,
    ) -> Result<Option<Found<'v>>, TooMuch> {
        if let Ok(index) = step.parse::<usize>() {
            return Ok(items.nth(index));
        }
        let mut many = Vec::new();
        for item in items {
            many.extend(self.step(item, step)?);
        }
        Ok(Some(Found::Many(many)))
    }

    /// What was found, as a value of its own.
    pub fn owned(&mut self, found: &Found<'_>) -> Result<Value, TooMuch> {
        match found {
            Found::One(value) => {
                self.weigh(value)?;
                Ok((*value).clone())
            }
            Found::Many(items) => {
                self.spend(1 + items.len())?;
                items.iter().map(|item| self.owned(item)).collect::<Result<_, _>>().map(Value::Array)
            }
        }
    }

    /// Takes off what a value would be as text, about.
    fn weigh(&mut self, value: &Value) -> Result<(), TooMuch> {
        match value {
            Value::String(text) => self.spend(text.len() + 2),
            Value::Array(items) => {
                self.spend(LEAST + items.len())?;
                items.iter().try_for_each(|item| self.weigh(item))
            }
            Value::Object(fields) => {
                self.spend(LEAST)?;
                fields.iter().try_for_each(|(name, field)| {
                    self.spend(name.len() + 4)?;
                    self.weigh(field)
                })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => self.spend(LEAST),
        }
    }
}

//! Paths to values: names with dots in between, such as `entry.resource.id`. A step into a list applies to
//! every item, or selects one by its index if the step is a number.

use serde_json::Value;

/// The maximum length of a path in characters.
pub const LONGEST_WAY: usize = 256;
/// The maximum number of steps in a path.
pub const MOST_STEPS: usize = 32;
/// The maximum number of values visited for one answer, over all paths: about a tenth of a second's work.
const MOST_VISITS: usize = 4_000_000;
/// The minimum cost of copying a value, in bytes: an empty value takes memory too.
const LEAST: usize = 8;

/// A path split into its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way<'w>(Vec<&'w str>);

impl<'w> Way<'w> {
    /// Parses a path. `None` if a step is empty or the path is too long.
    pub fn read(text: &'w str) -> Option<Self> {
        if text.chars().count() > LONGEST_WAY {
            return None;
        }
        let steps: Vec<&str> = text.split('.').collect();
        let fine = steps.len() <= MOST_STEPS && steps.iter().all(|step| !step.is_empty());
        fine.then_some(Self(steps))
    }

    /// The steps; there is at least one.
    pub fn steps(&self) -> &[&'w str] {
        &self.0
    }
}

/// The result would exceed its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

/// The target of a path: one value, or the values from a list's items.
pub enum Found<'v> {
    One(&'v Value),
    Many(Vec<Found<'v>>),
}

/// The remaining visits and bytes. It bounds the work for every configuration and every answer.
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

    /// Subtracts bytes; an error if too few are left.
    pub fn spend(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(TooMuch)?;
        Ok(())
    }

    /// Follows the path from `value`; `None` if it leads nowhere.
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

    /// Steps into a list. The recursion is as deep as the answer is nested, and the parser bounds that.
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

    /// A copy of the found values.
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

    /// Subtracts the approximate length of a value as text.
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

//! The bounds of a 422: the number of listed problems, and the size of each.
//!
//! The size of an answer must not depend on the number of errors in the request. [`Problems`] keeps the
//! first problems and only counts the others. A body with a hundred thousand errors therefore costs as much
//! as its first hundred.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::echo::{self, json_length};
use super::{Json, work};

/// The most problems that an answer lists.
pub const MOST_LISTED: usize = 100;
/// The longest echo of a value, in bytes of JSON.
pub const LONGEST_INPUT: usize = 4096;
/// The longest 422 answer, in bytes of its JSON.
pub const LONGEST_ANSWER: usize = 128 * 1024;

/// The total size of the listed problems: the answer without its frame and its last problem.
const LISTED_BYTES: usize = LONGEST_ANSWER - 1024;
/// The size of an answer after which problems are shown in brief form, so that a hundred of them fit.
const ROOMY_BYTES: usize = 48 * 1024;
/// The longest field name in a `loc`, in bytes of JSON.
const LONGEST_KEY: usize = 256;

/// The space that one problem may take.
#[derive(Clone, Copy, Debug)]
pub struct DisplayLimits {
    /// The limit for the echoed value, in bytes of JSON.
    pub input: usize,
    /// The limit for the `loc`, in bytes of JSON.
    pub loc: usize,
}

const FULL: DisplayLimits = DisplayLimits { input: LONGEST_INPUT, loc: 1024 };
const BRIEF: DisplayLimits = DisplayLimits { input: 64, loc: 192 };

/// One step of the path to a value: the name of a field or the index of an item. The first step is `body`
/// or `query`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Loc {
    /// The name of a field, possibly cut.
    Key(Cow<'static, str>),
    /// The index of an item, counted from 0.
    Index(usize),
}

impl From<&'static str> for Loc {
    fn from(key: &'static str) -> Self {
        Self::Key(Cow::Borrowed(key))
    }
}

impl From<String> for Loc {
    fn from(key: String) -> Self {
        Self::Key(Cow::Owned(key))
    }
}

impl From<usize> for Loc {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// One error in a request: an item of a 422's `detail` (`ValidationError` in the document).
///
/// It serializes to `{"type", "loc", "msg", "input"}`, and to `"ctx"` where the kind of error has one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// The kind of error: a fixed word for programs.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The path to the value, from `body` or `query` on.
    pub loc: Vec<Loc>,
    /// The sentence for people, in the words of the reference where it has the same problem.
    pub msg: String,
    /// The value from the request. Numbers keep their digits, and secrets read `**********`.
    pub input: Json,
    /// The values that the sentence contains, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Value>,
}

impl Problem {
    /// The refusal of a value that passed its schema, in the form of a pydantic `ValueError`. `message` is
    /// the end of a sentence that starts with "Value error, ".
    ///
    /// Actions use it for checks that need more than the schema, for example the confirmation of a slug.
    /// `ctx.error` is an empty object, as in the reference, because an exception has no JSON form.
    pub fn value_error(loc: Vec<Loc>, message: &str, input: Json) -> Self {
        Self {
            kind: "value_error",
            loc,
            msg: format!("Value error, {message}"),
            input,
            ctx: Some(serde_json::json!({ "error": {} })),
        }
    }

    /// The last problem of an answer that omits `count` problems. `part` is the part of the request that
    /// they are in.
    fn more(count: usize, listed: usize, part: Loc) -> Self {
        let (are, problems) = if count == 1 { ("is", "problem") } else { ("are", "problems") };
        Self {
            kind: "too_many_problems",
            loc: vec![part],
            msg: format!("{count} more {problems} {are} not listed"),
            input: Json::Null,
            ctx: Some(serde_json::json!({ "listed": listed, "more": count })),
        }
    }
}

/// The problems of one request: the first ones, and the number of the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problems {
    listed: Vec<Problem>,
    bytes: usize,
    more: usize,
}

impl Problems {
    /// The number of problems found, listed or not.
    pub const fn count(&self) -> usize {
        self.listed.len() + self.more
    }

    /// Whether no problem was found, listed or not.
    pub const fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// The problems that an answer lists, without the one that counts the others.
    pub fn listed(&self) -> &[Problem] {
        &self.listed
    }

    /// Adds a problem. `make` runs only if the answer still has space, and gets the size of that space.
    pub fn add(&mut self, make: impl FnOnce(DisplayLimits) -> Problem) {
        if self.listed.len() == MOST_LISTED || self.more > 0 {
            self.more += 1;
            return;
        }
        let limits = if self.bytes < ROOMY_BYTES { FULL } else { BRIEF };
        let problem = make(limits);
        let length = length_of(&problem) + 1;
        work::spend(length);
        if self.bytes + length > LISTED_BYTES {
            self.more += 1;
            return;
        }
        self.bytes += length;
        self.listed.push(problem);
    }

    /// All problems of an answer: the listed ones, then one with the number of the omitted ones.
    pub fn into_answer(self) -> Vec<Problem> {
        let mut answer = self.listed;
        if self.more > 0 {
            let part = answer.first().and_then(|first| first.loc.first().cloned());
            let listed = answer.len();
            answer.push(Problem::more(self.more, listed, part.unwrap_or_else(|| "body".into())));
        }
        answer
    }
}

impl From<Vec<Problem>> for Problems {
    fn from(found: Vec<Problem>) -> Self {
        let mut problems = Self::default();
        problems.extend(found);
        problems
    }
}

impl From<Problems> for Vec<Problem> {
    fn from(found: Problems) -> Self {
        found.into_answer()
    }
}

impl Extend<Problem> for Problems {
    fn extend<T: IntoIterator<Item = Problem>>(&mut self, found: T) {
        for problem in found {
            self.add(|limits| bounded(problem, limits));
        }
    }
}

/// The problem within its space. A problem that fits is not copied.
fn bounded(mut problem: Problem, limits: DisplayLimits) -> Problem {
    if let Some(cut) = echo::cut(&problem.input, limits.input) {
        problem.input = cut;
    }
    if problem.loc.iter().map(step_length).sum::<usize>() > limits.loc
        || problem.loc.iter().any(|step| step_length(step) > LONGEST_KEY + 2)
    {
        problem.loc = bounded_loc(&problem.loc, limits.loc);
    }
    problem
}

/// The path to a value for a problem: long names are cut, and a long path ends with the number of the
/// omitted steps.
pub(super) fn bounded_loc(loc: &[Loc], most: usize) -> Vec<Loc> {
    let mut shown = Vec::with_capacity(loc.len().min(16));
    let mut length = 0;
    for (index, step) in loc.iter().enumerate() {
        let step = match step {
            Loc::Key(key) => match echo::cut_text(key, LONGEST_KEY.min(most)) {
                Some(cut) => Loc::from(cut),
                None => step.clone(),
            },
            Loc::Index(_) => step.clone(),
        };
        length += step_length(&step);
        // The part of the request and the first step are always shown.
        if length > most && index > 1 {
            shown.push(Loc::from(format!("\u{2026}(+{} steps)", loc.len() - index)));
            break;
        }
        shown.push(step);
    }
    work::spend(length);
    shown
}

fn step_length(step: &Loc) -> usize {
    match step {
        Loc::Key(key) => json_length(key),
        Loc::Index(_) => 8,
    }
}

/// The length of a problem as JSON, in bytes. A problem that cannot be serialized is never listed.
fn length_of(problem: &Problem) -> usize {
    serialized_length(problem).unwrap_or(usize::MAX / 2)
}

/// The length of a value as JSON, in bytes, without the memory for its text.
///
/// # Errors
/// The value cannot be serialized.
pub fn serialized_length(value: &impl Serialize) -> serde_json::Result<usize> {
    struct Length(usize);
    impl std::io::Write for Length {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value)?;
    Ok(length.0)
}

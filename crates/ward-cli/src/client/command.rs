//! The subcommands of `ward api`: one for each operation, with help and completions from the document.

use std::ffi::OsStr;
use std::fmt::Write as _;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{Error, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, Subcommand};
use comfy_table::{Table, presets};

use super::operations::{BodyForm, Field, OPERATIONS, Operation, Place};

const GIVEN: &str = "given";

/// The operation of a command line, and the arguments for it.
#[derive(Clone, Debug)]
pub struct Called {
    pub operation: &'static Operation,
    /// `NAME=VALUE`, `NAME:=JSON` and `@FILE`, as they were written.
    pub given: Vec<String>,
}

impl FromArgMatches for Called {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let missing = || Error::raw(ErrorKind::MissingSubcommand, "an operation is missing");
        let (name, matches) = matches.subcommand().ok_or_else(missing)?;
        let operation = Operation::named(name).ok_or_else(missing)?;
        let given = matches.get_many::<String>(GIVEN).into_iter().flatten().cloned().collect();
        Ok(Self { operation, given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for Called {
    // The document is large, and only `ward api` needs it.
    fn augment_subcommands(command: Command) -> Command {
        command.defer(|command| command.subcommands(OPERATIONS.iter().map(subcommand)))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Operation::named(name).is_some()
    }
}

fn subcommand(operation: &'static Operation) -> Command {
    let command = Command::new(operation.name.as_str()).about(operation.summary.as_str());
    let command = command.after_help(after_help(operation));
    command.arg(
        Arg::new(GIVEN)
            .value_name("NAME=VALUE")
            .help("A parameter or a field of the body, from the list below")
            .action(ArgAction::Append)
            .num_args(0..)
            .value_parser(Given(operation))
            .hide_possible_values(true),
    )
}

/// Accepts every text, because errors about a name need the whole command line. It offers the names to completions.
#[derive(Clone)]
struct Given(&'static Operation);

impl TypedValueParser for Given {
    type Value = String;

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        let text = value.to_str().ok_or_else(|| Error::new(ErrorKind::InvalidUtf8).with_cmd(command))?;
        Ok(text.to_owned())
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let operation: &'static Operation = self.0;
        if operation.fields.is_empty() {
            return None;
        }
        Some(Box::new(operation.fields.iter().map(|field| PossibleValue::new(field.spelled.as_str()))))
    }
}

/// The request, the caller's permission and the list of parameters.
fn after_help(operation: &Operation) -> String {
    let mut text = format!("{} {}\n", operation.method, operation.path);
    if let Some(permission) = &operation.permission {
        let _ = writeln!(text, "The caller needs the permission {permission}.");
    }
    if operation.anonymous {
        text += "No credential is sent.\n";
    }
    for (place, heading) in
        [(Place::Path, "In the path"), (Place::Query, "In the query"), (Place::Body, "In the body")]
    {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let fields = operation.fields.iter().filter(|field| field.place == place);
        for field in fields {
            table.add_row([format!("  {}", field.name), words(field), field.about.clone()]);
        }
        if !table.is_empty() {
            let _ = write!(text, "\n{heading}:\n{}\n", table.trim_fmt());
        }
    }
    match operation.body {
        Some(BodyForm::Object) => {
            text += "\n@FILE gives the whole body as JSON, and fields beside it replace its own.\n";
        }
        Some(BodyForm::Whole) => text += "\n@FILE gives the body as JSON.\n",
        None => {}
    }
    text + "\n" + &operation.details
}

fn words(field: &Field) -> String {
    let mut words = field.kind.words();
    if field.required {
        words += ", required";
    }
    if field.secret {
        words += ", secret";
    }
    words
}

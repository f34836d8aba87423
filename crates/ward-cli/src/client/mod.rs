//! The client of the API: `ward api` for every operation of the document, and `ward login` for the credentials.
//!
//! It is a client like any other: it asks a server over HTTP and opens no database.

mod arguments;
mod command;
mod issuer;
mod keyring;
mod login;
mod operations;
mod print;
mod profiles;
mod target;
mod wire;

use serde_json::Value;

use self::arguments::{Filled, fill};
pub use self::command::Called;
pub use self::login::{ClaimArguments, LoginArguments, claim, login, logout, profiles};
pub use self::operations::OPERATIONS;
use self::print::Page;
pub use self::target::Target;
use self::wire::{Caller, Outgoing};
use crate::failure::{CodedFailure, Failure};
use crate::show::{self, Output};

/// The end of the help of `ward api`.
pub const EXIT_CODES: &str = "\
Values: NAME=VALUE has the type that the document declares, NAME:=JSON is any JSON, NAME=@FILE is the content of a file, and @FILE \
is a whole body. @- is standard input.

Exit codes: 0 success, 1 another failure, 2 a wrong command line, 3 refused (401, 403), 4 not found (404), 5 conflict (409, 412), \
6 wrong values (400, 413, 422), 7 too many requests (429), 8 no answer or a failure of the server (5xx).";

/// The flags of `ward api`, which its operations take too.
#[derive(Clone, Debug, clap::Args)]
pub struct ApiFlags {
    #[command(flatten)]
    pub target: Target,
    /// Print every page of a list. With `--json`, each entry is one line.
    #[arg(long, global = true, help_heading = "Requests")]
    pub all: bool,
    /// The key by which the server recognizes a repeat of this write. Default: a new one.
    #[arg(long, global = true, value_name = "KEY", help_heading = "Requests")]
    pub idempotency_key: Option<String>,
    /// How often a request is sent again at most, if no answer came or the server asks for it.
    #[arg(long, global = true, value_name = "COUNT", default_value_t = 4, help_heading = "Requests")]
    pub repeats: u32,
    /// Send no credential, although a profile or a variable has one.
    #[arg(long, global = true, help_heading = "Requests")]
    pub anonymous: bool,
}

/// Runs one command of the client.
pub fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn new_key() -> String {
    ward::random::id().to_string()
}

/// Sends an operation and prints its answer.
pub async fn api(flags: ApiFlags, called: Called, out: Output) -> Result<(), Failure> {
    let Called { operation, given } = called;
    if flags.idempotency_key.is_some() && !operation.idempotent {
        return Err(CodedFailure::usage(format!("{} takes no idempotency key", operation.name)).into());
    }
    let resolved = flags.target.resolve(flags.anonymous || operation.anonymous).await?;
    let filled = fill(operation, &given, resolved.workspace.as_deref(), &mut std::io::stdin())?;
    let idempotency_key = operation.idempotent.then(|| flags.idempotency_key.unwrap_or_else(new_key));
    let outgoing = Outgoing { method: operation.method.clone(), filled, idempotency_key };
    let caller = resolved.caller(flags.repeats)?;
    if flags.all {
        let no_pages =
            || CodedFailure::usage(format!("{} has no pages, so --all has no meaning", operation.name));
        let parameter = operation.paging.ok_or_else(no_pages)?.parameter();
        return all(&caller, outgoing, parameter, out).await;
    }
    let answered = caller.send(&outgoing).await?;
    match answered.failure() {
        Some(failure) => Err(failure.into()),
        None => print::answer(answered, out).await,
    }
}

/// Prints the entries of every page, from the given place on.
async fn all(caller: &Caller, mut outgoing: Outgoing, parameter: &str, out: Output) -> Result<(), Failure> {
    let mut rows: Vec<Value> = Vec::new();
    loop {
        let answered = caller.send(&outgoing).await?;
        if let Some(failure) = answered.failure() {
            return Err(failure.into());
        }
        let body = answered.json();
        let page = Page::of(&body).ok_or_else(|| CodedFailure::local("the answer is no page of a list"))?;
        if out.is_json() {
            for item in page.items {
                show::line(&item.to_string());
            }
        } else {
            rows.extend_from_slice(page.items);
        }
        let Some(next) = page.next else { break };
        let Filled { query, .. } = &mut outgoing.filled;
        let next = (parameter.to_owned(), next);
        if query.contains(&next) {
            return Err(CodedFailure::local("the server answered with the same page again").into());
        }
        query.retain(|(name, _)| name != parameter);
        query.push(next);
    }
    if out.is_json() { Ok(()) } else { print::list(&rows, out) }
}

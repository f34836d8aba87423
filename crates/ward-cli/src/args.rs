//! The command line. Commands are declared here; flags that are settings are declared in [`crate::flags`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::client::{ApiFlags, Called, ClaimArguments, EXIT_CODES, LoginArguments};
use crate::flags::{Global, ServerSettings};

/// The workspace control plane: the tenants that exist, and the people and keys that may enter them.
#[derive(Debug, Parser)]
#[command(name = "ward", version, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API until a signal stops the server.
    Serve {
        #[command(flatten)]
        settings: ServerSettings,
    },
    /// Create, archive, restore and show workspaces.
    Workspace {
        #[command(subcommand)]
        action: WorkspaceAction,
    },
    /// List, issue and revoke keys without the API, when the workspace's own people cannot.
    Key {
        #[command(subcommand)]
        action: KeyAction,
    },
    /// List and remove a workspace's members.
    Member {
        #[command(subcommand)]
        action: MemberAction,
    },
    /// Show and control the deliveries of finished calls to EHRs.
    Sync {
        #[command(subcommand)]
        action: SyncAction,
    },
    /// Show calls with their deliveries, correct them, and end them.
    Calls {
        #[command(subcommand)]
        action: CallsAction,
    },
    /// Compare calls with Twilio's own list.
    Twilio {
        #[command(subcommand)]
        action: TwilioAction,
    },
    /// Manage the keys under which secrets are sealed.
    Secrets {
        #[command(subcommand)]
        action: SecretsAction,
    },
    /// Send any operation of the API to a server, and print the answer. `ward api OPERATION --help` lists its parameters.
    #[command(after_help = EXIT_CODES, arg_required_else_help = true)]
    Api {
        #[command(flatten)]
        flags: ApiFlags,
        #[command(subcommand)]
        called: Called,
    },
    /// Keep a credential for a server in a profile: an API key from standard input or the terminal, or a sign-in at an issuer.
    Login(LoginArguments),
    /// Claim an unclaimed workspace, or a new one, and keep its owner's key in a profile.
    Claim(ClaimArguments),
    /// Remove a profile and its credential from this machine.
    Logout {
        /// The profile. Default: the default profile.
        #[arg(long, value_name = "NAME", env = "WARD_CLIENT_PROFILE")]
        profile: Option<String>,
    },
    /// List the profiles of this user, without their credentials.
    Profiles {
        /// Make this profile the default one.
        #[arg(long, value_name = "NAME")]
        default: Option<String>,
    },
    /// Bring the database's schema up to date, and print the steps that were applied.
    Migrate,
    /// Move the whole database to another engine.
    Db {
        #[command(subcommand)]
        action: DbAction,
    },
    /// Copy the current database file into a new file, also while a server uses it. The master key is not
    /// included.
    Backup {
        /// The new file. An existing file is never overwritten.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Check a backup and put it in the place of the database file. Existing files are never overwritten.
    Restore {
        /// The backup. It is only read.
        file: PathBuf,
        /// Only check the backup, on a scratch copy in the folder for temporary files (`TMPDIR`): that it
        /// opens and is sound, that this Ward can migrate it, and how many rows each table has.
        #[arg(long)]
        check: bool,
    },
    /// Print the effective settings and the source of each. Secrets are hidden.
    Config {
        #[command(flatten)]
        settings: ServerSettings,
    },
    /// Check the whole installation: settings, keys, schema, clock, disk, encoding, permissions, sealed
    /// values. Each line says ok or what to do. The exit code is 0 when there is nothing to do. Nothing is
    /// changed.
    Doctor {
        #[command(flatten)]
        settings: ServerSettings,
    },
    /// Print the `OpenAPI` document of the API.
    Openapi,
    /// Check that the server with these settings is up; for container health checks.
    Health {
        #[command(flatten)]
        settings: ServerSettings,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell that the script is for.
        shell: Shell,
    },
    /// Write the manual pages of every command, such as `ward-serve.1`, into a folder.
    Man {
        /// The folder. It is created if it does not exist.
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum WorkspaceAction {
    /// Create an active workspace without members. `ward key issue` gives it its first key.
    Create {
        /// The globally unique name for URLs and confirmations.
        slug: String,
        /// The display name. Default: the slug.
        #[arg(long)]
        name: Option<String>,
        /// The environment: production, staging or development.
        #[arg(long, default_value = "production")]
        environment: String,
        /// The region of its data, such as eu-central-1. Default: the API's default.
        #[arg(long)]
        region: Option<String>,
        /// The workspace's id in the platform's backend.
        #[arg(long, value_name = "ID")]
        backend_org_id: Option<String>,
    },
    /// List workspaces of every state, in the order of their ids.
    List {
        /// Start after the workspace with this id.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// The most rows to list, 1 to 100,000.
        #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Show one workspace in any state.
    Show {
        /// The slug or id of the workspace.
        workspace: String,
    },
    /// Archive an active workspace: access ends at once; every row and the slug are kept. `restore` reverses
    /// it.
    Archive {
        /// The slug or id of the workspace.
        workspace: String,
    },
    /// Show a workspace's usage and limits, and set limits for it.
    Limits {
        /// The slug or id of the workspace.
        workspace: String,
        /// A limit for this workspace, such as `keys=500`. The flag can be repeated.
        #[arg(long, value_name = "NAME=VALUE")]
        set: Vec<String>,
        /// A quota that returns to the limit of the settings. The flag can be repeated.
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
    },
    /// Show from which networks a workspace may be entered, and of which issuers its users must be. The flags lift these rules
    /// for people who have locked themselves out.
    Access {
        /// The slug or id of the workspace.
        workspace: String,
        /// Let members and keys in from every network.
        #[arg(long)]
        clear_networks: bool,
        /// Let users of every issuer be members.
        #[arg(long)]
        clear_issuers: bool,
    },
    /// Make an archived workspace active again, with its memberships and unexpired keys.
    Restore {
        /// The slug or id of the workspace.
        workspace: String,
    },
    /// Place a legal hold: nothing of the workspace may be deleted until `unhold`.
    Hold {
        /// The slug or id of the workspace.
        workspace: String,
        /// The reason, such as the number of a case.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Lift the legal hold of a workspace.
    Unhold {
        /// The slug or id of the workspace.
        workspace: String,
    },
}

/// The flags by which every list is read in pages.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ListPage {
    /// Start after this position, which the previous page printed.
    #[arg(long, value_name = "PLACE", default_value_t = 0)]
    pub after: i64,
    /// The most rows to list, 1 to 100,000.
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

#[derive(Debug, Subcommand)]
pub enum KeyAction {
    /// List a workspace's keys that were not revoked, with the time of their last use. Secrets are never shown.
    List {
        /// The slug or id of the workspace.
        workspace: String,
        #[command(flatten)]
        page: ListPage,
    },
    /// Create a key for a workspace and print it, this once.
    Issue {
        /// The slug or id of the workspace.
        workspace: String,
        /// The role: viewer, member, operator, admin or owner.
        #[arg(long)]
        role: String,
        /// The name in lists, such as the ticket for which it is issued.
        #[arg(long)]
        name: String,
        /// The lifetime in days, 1 to 90; by default the longest that the ceilings allow. After it, the key is refused.
        #[arg(long)]
        days: Option<u64>,
    },
    /// Revoke a key. From then on, every replica refuses it.
    Revoke {
        /// The key's public part, which is the 22 characters after `ward_`, or the whole key.
        key_id: String,
    },
    /// Find live keys in files, such as logs. Only their public parts are printed, and the exit code is 1 if there are any.
    Scan {
        /// The files to search; `-` is standard input.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum MemberAction {
    /// List the members of a workspace.
    List {
        /// The slug or id of the workspace.
        workspace: String,
        #[command(flatten)]
        page: ListPage,
    },
    /// End a membership, and the member's keys in this workspace. The last user with the role owner stays.
    Remove {
        /// The slug or id of the workspace.
        workspace: String,
        /// The `entity_id` of the member.
        entity_id: String,
    },
}

/// The fields of a call that a person changes.
#[derive(Debug, Args)]
pub struct CallChanges {
    /// The EHR's id of the patient. Empty text removes it.
    #[arg(long, value_name = "ID", value_parser = parse_patient, required_unless_present_any = ["encounter_id", "summary"])]
    pub patient_id: Option<String>,
    /// The EHR's id of the patient's encounter that the call belongs to. Empty text removes it.
    #[arg(long, value_name = "ID", value_parser = parse_patient)]
    pub encounter_id: Option<String>,
    /// The summary. Empty text removes it.
    #[arg(long, value_name = "TEXT", value_parser = parse_summary)]
    pub summary: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum SyncAction {
    /// Show for each integration the counts, the oldest waiting delivery, and the reason if nothing is sent.
    Status {
        /// The slug or id of the workspace.
        #[arg(required_unless_present = "all")]
        workspace: Option<String>,
        /// Show the integrations of all workspaces, a page at a time.
        #[arg(long, conflicts_with = "workspace")]
        all: bool,
        /// The most integrations to show, 1 to 1,000.
        #[arg(long, default_value_t = 100, requires = "all", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// The end of the previous page.
        #[arg(long, value_name = "TEXT", requires = "all")]
        after: Option<String>,
    },
    /// List the deliveries that wait for a person who knows the patient or the encounter, the first opened first.
    Reviews {
        /// The slug or id of the workspace.
        workspace: String,
        #[command(flatten)]
        page: ListPage,
    },
    /// Show a review with its candidates, or decide it. Showing it writes an audit event, because it reads patient data.
    Review {
        /// The slug or id of the workspace.
        workspace: String,
        /// The id of the delivery, as `ward sync reviews` lists it.
        delivery: String,
        /// Decide: the EHR's id of the patient or the encounter, a candidate's or another one.
        #[arg(long, value_name = "ID", value_parser = parse_chosen, requires = "review")]
        id: Option<String>,
        /// The id of the review that was shown. One that was decided or replaced since is refused.
        #[arg(long, value_name = "ID", requires = "id")]
        review: Option<String>,
    },
    /// Drop a delivery, so that it is never sent. Only a retry by a person revives it.
    Drop {
        /// The slug or id of the workspace.
        workspace: String,
        /// The id of the delivery, as the API lists it.
        delivery: String,
        /// The reason, which is stored with the delivery.
        #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
        reason: String,
    },
    /// Change a call that the EHR has, and its record there. A document cannot move to another patient. The former values are kept
    /// sealed.
    Amend {
        /// The slug or id of the workspace.
        workspace: String,
        /// The id of the delivery, as the API lists it.
        delivery: String,
        #[command(flatten)]
        changes: CallChanges,
    },
    /// Retry one delivery at once, or all failed ones, at most 1,000 at a time.
    Retry {
        /// The slug or id of the workspace.
        workspace: String,
        /// The id of the delivery. Default: all failed deliveries.
        delivery: Option<String>,
    },
    /// Record what a person found in the EHR about a delivery whose outcome Ward does not know.
    Resolve {
        /// The slug or id of the workspace.
        workspace: String,
        /// The id of the delivery, as the API lists it.
        delivery: String,
        /// The call is in the EHR: the delivery is settled.
        #[arg(long, conflicts_with = "not_in_ehr", required_unless_present = "not_in_ehr")]
        in_ehr: bool,
        /// The location in the EHR, such as Communication/12.
        #[arg(long, value_name = "PLACE", requires = "in_ehr", value_parser = parse_place)]
        location: Option<String>,
        /// The call is not in the EHR: it is sent at once, without a search.
        #[arg(long)]
        not_in_ehr: bool,
    },
    /// Hold an integration's deliveries: calls are still queued, but nothing is sent.
    Hold {
        /// The slug or id of the workspace.
        workspace: String,
        /// The id of the integration, or the name of its connector.
        integration: String,
        /// Release the hold: the waiting deliveries are sent.
        #[arg(long)]
        release: bool,
    },
}

/// Checks a reason as the API does.
fn parse_reason(text: &str) -> Result<String, String> {
    bounded(text.trim(), 1, 500)
}

/// Checks the id of a patient or an encounter as the API does.
fn parse_chosen(text: &str) -> Result<String, String> {
    bounded(&parse_patient(text)?, 1, 64)
}

/// Checks a patient's id as the API does, or an empty text.
fn parse_patient(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    if !text.chars().all(fits) {
        return Err("only letters, digits, `.` and `-` can be used".to_owned());
    }
    bounded(text, 0, 64)
}

/// Checks a summary as the API does, or an empty text.
fn parse_summary(text: &str) -> Result<String, String> {
    bounded(text, 0, 20_000)
}

fn bounded(text: &str, least: usize, most: usize) -> Result<String, String> {
    if !(least..=most).contains(&text.chars().count()) || text.contains('\0') {
        return Err(format!("the text must have {least} to {most} characters"));
    }
    Ok(text.to_owned())
}

/// Parses a location in an EHR by the API's rules.
fn parse_place(text: &str) -> Result<String, &'static str> {
    let fits = (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err("a location has 1 to 200 visible characters, without spaces") }
}

#[derive(Debug, Subcommand)]
pub enum CallsAction {
    /// Show the test calls of a period, the reason for each, and that nothing of them was queued or sent. The
    /// command fails if anything was. It writes an audit event, because it reads phone numbers.
    ProveExclusion {
        /// The slug or id of the workspace.
        workspace: String,
        /// The first day (UTC), such as 2026-04-01.
        #[arg(long, value_name = "DAY")]
        from: String,
        /// The last day (UTC), which is included.
        #[arg(long, value_name = "DAY")]
        to: String,
    },
    /// Queue the deliveries of calls that finished before the workspace had an integration for them.
    Backfill {
        /// The slug or id of the workspace.
        workspace: String,
        /// The first day (UTC) on which the calls started, such as 2026-04-01.
        #[arg(long, value_name = "DAY")]
        from: String,
        /// The last day (UTC), which is included.
        #[arg(long, value_name = "DAY")]
        to: String,
    },
    /// Change what the EHR receives about a call that it does not have yet. The former values are kept sealed.
    Correct {
        /// The slug or id of the workspace.
        workspace: String,
        /// The call's id at the telephone provider.
        call_sid: String,
        #[command(flatten)]
        changes: CallChanges,
    },
    /// List the calls of all workspaces that no report has ended, the longest silent first.
    Unfinished {
        /// The most calls to list, 1 to 1,000.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// End a call that has no reported end. Its delivery then follows, as for any other call.
    End {
        /// The slug or id of the workspace.
        workspace: String,
        /// The call's id at the telephone provider.
        call_sid: String,
        /// The status: completed, busy, no-answer, failed or canceled.
        #[arg(long, default_value = "completed", value_parser = ["completed", "busy", "no-answer", "failed", "canceled"])]
        status: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum TwilioAction {
    /// Compare the calls of a workspace, or of all workspaces, with Twilio's list now. A server does so every night. The command
    /// fails if a comparison fails.
    Reconcile {
        /// The slug or id of the workspace. Default: every workspace with a Twilio account.
        #[arg(long)]
        workspace: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum DbAction {
    /// Copy a file into an empty database on a server, and compare both row by row. No `ward serve` may run
    /// on the file. After an interruption, run the command again.
    Copy {
        /// The file to copy, as `sqlite:PATH`.
        #[arg(long, value_name = "URL")]
        from: String,
        /// The database on the server, as `postgres://…`. Default: the setting `database`, which keeps a
        /// password off the command line.
        #[arg(long, value_name = "URL")]
        to: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum SecretsAction {
    /// Create a new master key, in the file that `--master-key-file` names or beside the database file. An
    /// existing file is never replaced.
    CreateKey,
    /// Seal every value under the current key that is still sealed under a previous key, while servers run.
    /// After that the previous keys can be removed.
    Rotate,
    /// List every sealed value that the given keys cannot open, and forget these values after a confirmation
    /// or with `--yes`. This is for a lost master key. Stop the servers first.
    Forget {
        /// Forget the values without a confirmation.
        #[arg(long)]
        yes: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let cli =
            Cli::try_parse_from(["ward", "serve", "--listen", "127.0.0.1:0", "--json-depth", "9"]).unwrap();
        let Command::Serve { settings } = cli.command else { panic!("not serve") };
        assert_eq!(settings.0, [("listen", "127.0.0.1:0".to_owned()), ("json_depth", "9".to_owned())]);
    }

    #[test]
    fn secrets_are_no_flags() {
        assert!(Cli::try_parse_from(["ward", "serve", "--master-key", "x"]).is_err());
        assert!(Cli::try_parse_from(["ward", "serve", "--bootstrap-token", "x"]).is_err());
    }

    #[test]
    fn every_command_takes_the_same_flags_before_and_after_its_name() {
        fn leaves(command: &clap::Command, path: &[String], into: &mut Vec<Vec<String>>) {
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let path = [path, &[sub.get_name().to_owned()]].concat();
                if sub.has_subcommands() {
                    leaves(sub, &path, into);
                } else {
                    into.push(path);
                }
            }
        }
        let mut command = Cli::command();
        command.build();
        let mut all = Vec::new();
        leaves(&command, &[], &mut all);
        assert!(all.len() > 20, "{all:?}");
        for path in all {
            let leaf = path.iter().fold(&command, |at, name| at.find_subcommand(name).unwrap());
            for flag in ["database", "master-key-file", "config", "json", "log"] {
                let found = leaf.get_arguments().any(|argument| argument.get_long() == Some(flag));
                assert!(found, "{path:?} does not take --{flag}");
            }
        }
        for line in [
            "ward --json --database sqlite:x.db workspace list",
            "ward workspace list --json --database sqlite:x.db",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.global.json, "{line}");
            assert_eq!(cli.global.settings.0, [("database", "sqlite:x.db".to_owned())], "{line}");
        }
    }
}

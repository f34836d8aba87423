//! The command line. Commands are declared here; the flags that are settings stand in [`crate::flags`].

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::flags::{Global, ServerSettings};

/// The workspace control plane: which tenants exist, and who may enter them.
#[derive(Debug, Parser)]
#[command(name = "ward", version, max_term_width = 110)]
pub struct Cli {
    /// The flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API.
    Serve {
        /// The server's settings.
        #[command(flatten)]
        settings: ServerSettings,
    },
    /// Create, archive, restore and look at workspaces.
    Workspace {
        /// The action.
        #[command(subcommand)]
        action: WorkspaceAction,
    },
    /// List, issue and revoke keys past the API, when a workspace's people cannot.
    Key {
        /// The action.
        #[command(subcommand)]
        action: KeyAction,
    },
    /// List and remove a workspace's members.
    Member {
        /// The action.
        #[command(subcommand)]
        action: MemberAction,
    },
    /// See and steer what finished calls owe to EHRs.
    Sync {
        /// The action.
        #[command(subcommand)]
        action: SyncAction,
    },
    /// Show what calls were, and what became of them.
    Calls {
        /// What to show.
        #[command(subcommand)]
        action: CallsAction,
    },
    /// Look after the keys under which secrets are sealed.
    Secrets {
        /// The action.
        #[command(subcommand)]
        action: SecretsAction,
    },
    /// Bring the database's schema up to date, and say which steps that took.
    Migrate,
    /// Move the whole database.
    Db {
        /// How.
        #[command(subcommand)]
        action: DbAction,
    },
    /// Copy the database file as it is now into a new file, beside the server on it. The master key is not in it.
    Backup {
        /// The new file. A file that is there already is never overwritten.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Put a backup where the database file is to be, once it has passed the check. Nothing that is there is overwritten.
    Restore {
        /// The backup. It is only read.
        file: PathBuf,
        /// Only try it out, on a scratch copy in the folder for temporary files (`TMPDIR`): that it opens and is sound, that
        /// this Ward can migrate it, and how many rows each table has.
        #[arg(long)]
        check: bool,
    },
    /// Print the settings in force and where each came from. Secrets are hidden.
    Config {
        /// The server's settings.
        #[command(flatten)]
        settings: ServerSettings,
    },
    /// Look at everything that keeps this installation in order: settings, keys, schema, clock, disk, encoding, permissions, sealed
    /// values. Each line says ok or what to do; the exit code is 0 when nothing must be done. Nothing is changed.
    Doctor {
        /// The server's settings.
        #[command(flatten)]
        settings: ServerSettings,
    },
    /// Print the `OpenAPI` document of the API.
    Openapi,
    /// Ask the server that these settings describe whether it is up; for container health checks.
    Health {
        /// The server's settings.
        #[command(flatten)]
        settings: ServerSettings,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages of every command, such as `ward-serve.1`, into a folder.
    Man {
        /// The folder. It is made when it is not there.
        folder: PathBuf,
    },
}

/// The actions on workspaces.
#[derive(Debug, Subcommand)]
pub enum WorkspaceAction {
    /// Create an active workspace without members. `ward key issue` gives it its first key.
    Create {
        /// Its globally unique name in URLs and confirmations.
        slug: String,
        /// Its name for people. Default: the slug.
        #[arg(long)]
        name: Option<String>,
        /// production, staging or development.
        #[arg(long, default_value = "production")]
        environment: String,
        /// Where its data lives, such as eu-central-1. Default: the API's.
        #[arg(long)]
        region: Option<String>,
        /// The id that the platform's backend knows it by.
        #[arg(long, value_name = "ID")]
        backend_org_id: Option<String>,
    },
    /// List workspaces of every state, in the order of their ids.
    List {
        /// Start after the workspace with this id.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// List at most this many.
        #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Show one workspace, whatever its state.
    Show {
        /// Its slug or id.
        workspace: String,
    },
    /// Archive an active workspace: access ends at once, every row and the slug stay. `restore` takes it back.
    Archive {
        /// Its slug or id.
        workspace: String,
    },
    /// Show what a workspace has and may have, and set limits for it.
    Limits {
        /// Its slug or id.
        workspace: String,
        /// A limit for this workspace, such as `keys=500`. May be given again for others.
        #[arg(long, value_name = "NAME=VALUE")]
        set: Vec<String>,
        /// A quota whose limit is to be the settings' again. May be given again for others.
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
    },
    /// Make an archived workspace active again, with its memberships and unexpired keys.
    Restore {
        /// Its slug or id.
        workspace: String,
    },
}

/// A page of a list.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ListPage {
    /// Start after this place, which the page before named.
    #[arg(long, value_name = "PLACE", default_value_t = 0)]
    pub after: i64,
    /// List at most this many.
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

/// The actions on keys.
#[derive(Debug, Subcommand)]
pub enum KeyAction {
    /// List a workspace's keys that were not revoked, with the time of their last use. Secrets are never shown.
    List {
        /// The workspace's slug or id.
        workspace: String,
        /// Which of them.
        #[command(flatten)]
        page: ListPage,
    },
    /// Mint a key for a workspace and print it, once.
    Issue {
        /// The workspace's slug or id.
        workspace: String,
        /// viewer, member, operator, admin or owner.
        #[arg(long)]
        role: String,
        /// Its name in lists, such as the ticket that it is issued for.
        #[arg(long)]
        name: String,
        /// How many days it lives, 1 to 90.
        #[arg(long, default_value_t = 90)]
        days: u64,
    },
    /// End a key at once.
    Revoke {
        /// Its public part: what follows `ward_` up to 22 characters.
        key_id: String,
    },
}

/// The actions on members.
#[derive(Debug, Subcommand)]
pub enum MemberAction {
    /// List a workspace's members.
    List {
        /// The workspace's slug or id.
        workspace: String,
        /// Which of them.
        #[command(flatten)]
        page: ListPage,
    },
    /// End a membership, with the keys that spoke for it in this workspace. The last user who is an owner stays.
    Remove {
        /// The workspace's slug or id.
        workspace: String,
        /// The member's `entity_id`.
        entity_id: String,
    },
}

/// The actions on deliveries.
#[derive(Debug, Subcommand)]
pub enum SyncAction {
    /// Counts, the oldest that waits, and why nothing is sent if so, for each integration.
    Status {
        /// The workspace's slug or id.
        workspace: String,
    },
    /// Try one delivery again at once, or all that failed, up to 1,000 at a time.
    Retry {
        /// The workspace's slug or id.
        workspace: String,
        /// The delivery's id; all that failed, when absent.
        delivery: Option<String>,
    },
    /// Say what a person found in the EHR about a delivery of which Ward cannot tell whether it arrived.
    Resolve {
        /// The workspace's slug or id.
        workspace: String,
        /// The delivery's id.
        delivery: String,
        /// The call is in the EHR: the delivery is settled.
        #[arg(long, conflicts_with = "not_in_ehr", required_unless_present = "not_in_ehr")]
        in_ehr: bool,
        /// Its place there, such as Communication/12.
        #[arg(long, value_name = "PLACE", requires = "in_ehr", value_parser = parse_place)]
        location: Option<String>,
        /// The call is not in the EHR: it is sent at once, without a search.
        #[arg(long)]
        not_in_ehr: bool,
    },
    /// Hold an integration's deliveries: calls go on to be owed, nothing is sent.
    Hold {
        /// The workspace's slug or id.
        workspace: String,
        /// The integration's id, or its connector's name.
        integration: String,
        /// Let them go again.
        #[arg(long)]
        release: bool,
    },
}

/// A place in an EHR, as the API takes it.
fn parse_place(text: &str) -> Result<String, &'static str> {
    let fits = (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err("a place is 1 to 200 visible characters, without spaces") }
}

/// The views of calls.
#[derive(Debug, Subcommand)]
pub enum CallsAction {
    /// Show a period's test calls, why each was one, and that nothing of it was owed or sent. Fails if anything was.
    ProveExclusion {
        /// The workspace's slug or id.
        workspace: String,
        /// The first day (UTC), such as 2026-04-01.
        #[arg(long, value_name = "DAY")]
        from: String,
        /// The last day, inclusive.
        #[arg(long, value_name = "DAY")]
        to: String,
    },
}

/// The actions on the database as a whole.
#[derive(Debug, Subcommand)]
pub enum DbAction {
    /// Copy a file into an empty database on a server, and compare both row by row. No `ward serve` may run on the file.
    /// Interrupted, it is simply run again.
    Copy {
        /// The file: `sqlite:PATH`.
        #[arg(long, value_name = "URL")]
        from: String,
        /// The database: `postgres://…`. Without it, the setting `database`, which keeps a password off the command line.
        #[arg(long, value_name = "URL")]
        to: Option<String>,
    },
}

/// The actions on sealed secrets.
#[derive(Debug, Subcommand)]
pub enum SecretsAction {
    /// Make a new master key, in the file that `--master-key-file` names or in the one beside the database file. A file that
    /// is there is never replaced.
    CreateKey,
    /// Seal everything that is sealed under a former key anew under the one in force, while servers run. Then the former
    /// keys can go.
    Rotate,
    /// List every sealed value that the keys here do not open, and, with `--yes` or after a question, forget these values: for
    /// when a master key is lost. Stop the servers first.
    Forget {
        /// Forget them without a question.
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

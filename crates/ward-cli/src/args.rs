//! The command line. Commands are declared here; the flags that are settings come from the library's table.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Arg, ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use ward::config::settings::{SETTINGS, Setting};

/// The workspace control plane: which tenants exist, and who may enter them.
#[derive(Debug, Parser)]
#[command(name = "ward", version, max_term_width = 110)]
pub struct Cli {
    /// TOML file with settings; `WARD_CONFIG` names it too.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API.
    Serve {
        /// Every setting.
        #[command(flatten)]
        settings: AllSettings,
    },
    /// Look at workspaces, or bring one back.
    Workspace {
        /// What to do with them.
        #[command(subcommand)]
        action: WorkspaceAction,
        /// Which database.
        #[command(flatten)]
        settings: DatabaseSettings,
    },
    /// Issue or revoke a key past the API, when its people cannot.
    Key {
        /// What to do with it.
        #[command(subcommand)]
        action: KeyAction,
        /// Which database.
        #[command(flatten)]
        settings: DatabaseSettings,
    },
    /// See and steer what finished calls owe to EHRs.
    Sync {
        /// What to do with it.
        #[command(subcommand)]
        action: SyncAction,
        /// Which database.
        #[command(flatten)]
        settings: DatabaseSettings,
    },
    /// Show what calls were, and what became of them.
    Calls {
        /// What to show.
        #[command(subcommand)]
        action: CallsAction,
        /// Which database.
        #[command(flatten)]
        settings: DatabaseSettings,
    },
    /// Look after the keys under which secrets are sealed.
    Secrets {
        /// What to do with them.
        #[command(subcommand)]
        action: SecretsAction,
        /// Which database.
        #[command(flatten)]
        settings: DatabaseSettings,
    },
    /// Bring the database's schema up to date, and say which steps that took.
    Migrate {
        /// Which database.
        #[command(flatten)]
        settings: DatabaseSettings,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Move the whole database.
    Db {
        /// How.
        #[command(subcommand)]
        action: DbAction,
        /// Which database.
        #[command(flatten)]
        settings: DatabaseSettings,
    },
    /// Copy the database file as it is now into a new file, beside whoever serves it. The master key is not in it.
    Backup {
        /// The new file. One that is there already is never overwritten.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Which database.
        #[command(flatten)]
        settings: DatabaseSettings,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Put a backup where the database file is to be, once it has passed the check. Nothing that is there is overwritten.
    Restore {
        /// The backup. It is only read.
        file: PathBuf,
        /// Only try it out, on a scratch copy in the folder for temporary files (`TMPDIR`): that it opens and is sound, that
        /// this Ward can migrate it, and how many rows each table has.
        #[arg(long)]
        check: bool,
        /// Which database.
        #[command(flatten)]
        settings: DatabaseSettings,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the settings in force and where each came from. Secrets are hidden.
    Config {
        /// Every setting.
        #[command(flatten)]
        settings: AllSettings,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the `OpenAPI` document of the API.
    Openapi,
    /// Ask the server that these settings describe whether it is up; for container health checks.
    Health {
        /// Every setting.
        #[command(flatten)]
        settings: AllSettings,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// What the operator does with workspaces.
#[derive(Debug, Subcommand)]
pub enum WorkspaceAction {
    /// List workspaces of every state, in the order of their ids.
    List {
        /// Start after the workspace with this id.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// List at most this many.
        #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one workspace, whatever its state.
    Show {
        /// Its slug or id.
        workspace: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make an archived workspace active again, with its memberships and unexpired keys.
    Restore {
        /// Its slug or id.
        workspace: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What the operator does with keys.
#[derive(Debug, Subcommand)]
pub enum KeyAction {
    /// Mint a key for a workspace and print it, once.
    Issue {
        /// The workspace's slug or id.
        workspace: String,
        /// viewer, member, operator, admin or owner.
        #[arg(long, default_value = "owner")]
        role: String,
        /// What it is called in lists.
        #[arg(long)]
        name: Option<String>,
        /// How many days it lives, 1 to 90.
        #[arg(long, default_value_t = 90)]
        days: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End a key at once.
    Revoke {
        /// Its public part: what follows `ward_` up to 22 characters.
        key_id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What the operator does with deliveries.
#[derive(Debug, Subcommand)]
pub enum SyncAction {
    /// Counts, the oldest that waits, and why nothing is sent if so, for each integration.
    Status {
        /// The workspace's slug or id.
        workspace: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try one delivery again at once, or all that failed, up to 1,000 at a time.
    Retry {
        /// The workspace's slug or id.
        workspace: String,
        /// The delivery's id; all that failed, when absent.
        delivery: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
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
        /// Print JSON.
        #[arg(long)]
        json: bool,
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
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A place in an EHR, as the API takes it.
fn parse_place(text: &str) -> Result<String, &'static str> {
    let fits = (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err("a place is 1 to 200 visible characters, without spaces") }
}

/// What the operator shows of calls.
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
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What the operator does with the database as a whole.
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
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What the operator does with sealed secrets.
#[derive(Debug, Subcommand)]
pub enum SecretsAction {
    /// Seal everything that is sealed under a former key anew under the one in force, while servers run. Then the former
    /// keys can go.
    Rotate {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Flags that were given, by their setting's key.
pub type Flags = Vec<(&'static str, String)>;

/// A flag for every setting that may be one.
#[derive(Debug)]
pub struct AllSettings(pub Flags);

/// Flags for what a command needs that only opens the database.
#[derive(Debug)]
pub struct DatabaseSettings(pub Flags);

/// The settings that `DatabaseSettings` has flags for; the others still come from the environment and the file.
const OF_DATABASE: [&str; 5] =
    ["database", "master_key_file", "former_master_key_files", "log", "log_filter"];

/// Flags live as long as the process, as clap wants its names to.
static FLAGS: LazyLock<Vec<(&'static Setting, String)>> =
    LazyLock::new(|| SETTINGS.iter().filter_map(|setting| Some((setting, setting.flag()?))).collect());

fn with_flags(mut command: clap::Command, wanted: impl Fn(&Setting) -> bool) -> clap::Command {
    for (setting, flag) in FLAGS.iter().filter(|(setting, _)| wanted(setting)) {
        let default = setting.default_text();
        let default = if default.is_empty() { default } else { format!(" [default: {default}]") };
        command = command.arg(
            Arg::new(setting.key)
                .long(flag.as_str())
                .value_name(setting.form)
                .help(format!("{} [env: {}]{default}", setting.help, setting.variable()))
                .help_heading(setting.chapter),
        );
    }
    command
}

fn given(matches: &ArgMatches, wanted: impl Fn(&Setting) -> bool) -> Flags {
    let wanted = SETTINGS.iter().filter(|setting| !setting.secret && wanted(setting));
    wanted
        .filter_map(|setting| Some((setting.key, matches.get_one::<String>(setting.key)?.clone())))
        .collect()
}

/// Both kinds differ in which settings they want, and in nothing else.
macro_rules! flags_of_settings {
    ($kind:ident, $wanted:expr) => {
        impl Args for $kind {
            fn augment_args(command: clap::Command) -> clap::Command {
                with_flags(command, $wanted)
            }

            fn augment_args_for_update(command: clap::Command) -> clap::Command {
                with_flags(command, $wanted)
            }
        }

        impl FromArgMatches for $kind {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(given(matches, $wanted)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                self.0 = given(matches, $wanted);
                Ok(())
            }
        }
    };
}

flags_of_settings!(AllSettings, |_| true);
flags_of_settings!(DatabaseSettings, |setting| OF_DATABASE.contains(&setting.key));

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(OF_DATABASE.iter().all(|key| SETTINGS.iter().any(|setting| setting.key == *key)));
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
}

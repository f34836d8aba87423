//! Flags that are settings. They come from the library's table, so that flags, variables and keys of the file
//! always agree.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Arg, ArgMatches, Args, FromArgMatches};
use ward::config::Setting;
use ward::config::settings::SETTINGS;

/// The given flags, each with the key of its setting.
pub type Flags = Vec<(&'static str, String)>;

/// The flags that every command takes, before or after its name.
#[derive(Debug, Args)]
pub struct Global {
    /// TOML file with settings. `WARD_CONFIG` can name it too.
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    pub config: Option<PathBuf>,
    /// Print results, remarks and errors as JSON.
    #[arg(long, global = true, help_heading = HEADING)]
    pub json: bool,
    #[command(flatten)]
    pub settings: CommonSettings,
}

/// The heading in help texts for the flags of every command.
const HEADING: &str = "Every command";

/// Flags for the settings of every command.
#[derive(Debug)]
pub struct CommonSettings(pub Flags);

/// Flags for the settings of the server alone.
#[derive(Debug)]
pub struct ServerSettings(pub Flags);

const COMMON: [&str; 5] = ["database", "master_key_file", "former_master_key_files", "log", "log_filter"];

fn is_common(setting: &Setting) -> bool {
    COMMON.contains(&setting.key)
}

/// The flags live as long as the process, because clap borrows their names.
static FLAGS: LazyLock<Vec<(&'static Setting, String)>> =
    LazyLock::new(|| SETTINGS.iter().filter_map(|setting| Some((setting, setting.flag()?))).collect());

fn with_flags(mut command: clap::Command, common: bool) -> clap::Command {
    for (setting, flag) in FLAGS.iter().filter(|(setting, _)| is_common(setting) == common) {
        let default = setting.default_text();
        let default = if default.is_empty() { default } else { format!(" [default: {default}]") };
        command = command.arg(
            Arg::new(setting.key)
                .long(flag.as_str())
                .global(common)
                .value_name(setting.form)
                .help(format!("{} [env: {}]{default}", setting.help, setting.variable()))
                .help_heading(if common { HEADING } else { setting.chapter }),
        );
    }
    command
}

fn given(matches: &ArgMatches, common: bool) -> Flags {
    let wanted = SETTINGS.iter().filter(|setting| !setting.secret && is_common(setting) == common);
    wanted
        .filter_map(|setting| Some((setting.key, matches.get_one::<String>(setting.key)?.clone())))
        .collect()
}

/// The two kinds differ only in their settings.
macro_rules! flags_of_settings {
    ($kind:ident, $common:literal) => {
        impl Args for $kind {
            fn augment_args(command: clap::Command) -> clap::Command {
                with_flags(command, $common)
            }

            fn augment_args_for_update(command: clap::Command) -> clap::Command {
                with_flags(command, $common)
            }
        }

        impl FromArgMatches for $kind {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(given(matches, $common)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                self.0 = given(matches, $common);
                Ok(())
            }
        }
    };
}

flags_of_settings!(CommonSettings, true);
flags_of_settings!(ServerSettings, false);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_flags_are_settings() {
        assert!(COMMON.iter().all(|key| SETTINGS.iter().any(|setting| setting.key == *key)));
    }
}

//! The completion scripts of shells.

use std::io::Write as _;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::client::OPERATIONS;

/// A completion of `NAME=` is no whole word: its value follows without a space.
const BASH_VALUES: &str = r#"
_ward_with_values() {
    _ward "$@"
    if [[ ${#COMPREPLY[@]} == 1 && "${COMPREPLY[0]}" == *= ]]; then
        compopt -o nospace
    fi
}
complete -F _ward_with_values -o nosort -o bashdefault -o default ward
"#;

/// Prints the script of a shell. A closed pipe is not an error.
pub fn print(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ward", &mut script);
    if shell == Shell::Bash {
        script.extend_from_slice(BASH_VALUES.as_bytes());
    }
    if shell == Shell::Fish {
        // The generator for fish leaves out the values of arguments without a dash.
        for operation in OPERATIONS.iter().filter(|operation| !operation.fields.is_empty()) {
            let values: Vec<&str> = operation.fields.iter().map(|field| field.spelled.as_str()).collect();
            let (name, values) = (&operation.name, values.join(" "));
            let line = format!("complete -c ward -n '__fish_seen_subcommand_from {name}' -a '{values}'\n");
            script.extend_from_slice(line.as_bytes());
        }
    }
    let _ = std::io::stdout().write_all(&script);
}

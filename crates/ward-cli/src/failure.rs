//! The error that ends a command.

/// The error of a command; it is printed with its causes.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A failure with its own exit code and its own short name for scripts.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CodedFailure {
    /// The exit code of the process.
    pub exit: u8,
    /// The short name, such as the `error_code` of an answer.
    pub code: String,
    pub message: String,
    /// Further sentences, such as one for each wrong field.
    pub because: Vec<String>,
}

impl CodedFailure {
    /// The command line is wrong. The exit code is the one of every other wrong command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: 2, code: "usage".to_owned(), message: message.into(), because: Vec::new() }
    }

    /// Something on this machine failed, such as a file.
    pub fn local(message: impl Into<String>) -> Self {
        Self { exit: 1, code: "failed".to_owned(), message: message.into(), because: Vec::new() }
    }
}

//! The error that ends a command.

/// The error of a command; it is printed with its causes.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

//! Why a call came to no answer.

use std::error::Error as _;
use std::fmt;

/// Why a call came to no answer, or to none that can be used. Its sentence never holds a URL, a header or a body, which
/// may be secrets or a patient's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// One sentence for people.
    pub message: String,
    /// Whether the request may have reached the other side all the same.
    pub maybe_sent: bool,
}

/// Kinds of failure, as far as a caller acts on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// What was configured cannot work: no URL, an address or a scheme that the operator does not allow, a bad key.
    Misconfigured,
    /// No connection, or one that broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The other side's certificate or its TLS.
    Tls,
    /// The answer is larger than allowed.
    TooLarge,
    /// The answer is not HTTP, or ended before its end.
    Garbage,
    /// Too many calls of this integration are under way.
    Busy,
    /// The credentials were refused.
    AuthFailed,
}

impl Failure {
    /// A failure with its sentence. What is not known to have stayed here may have been sent.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), maybe_sent: true }
    }

    /// The same, before anything was sent.
    #[must_use]
    pub fn unsent(self) -> Self {
        Self { maybe_sent: false, ..self }
    }

    /// What was configured cannot work.
    pub fn misconfigured(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Misconfigured, message)
    }

    /// Reads the kind of failure out of the HTTP client's error, and drops the rest.
    pub(crate) fn of_client(error: &reqwest::Error) -> Self {
        let mut source = error.source();
        let mut found = None;
        while let Some(cause) = source {
            found = found.or_else(|| of_cause(cause));
            source = cause.source();
        }
        let failure = if let Some(failure) = found {
            failure
        } else if error.is_timeout() {
            Self::new(FailureKind::Timeout, "no answer in time")
        } else if error.is_connect() {
            Self::new(FailureKind::Unreachable, "no connection could be made")
        } else if error.is_builder() {
            Self::misconfigured("the request cannot be made as it is configured")
        } else {
            Self::new(FailureKind::Garbage, "the answer is not HTTP, or ended before its end")
        };
        // A request is written only on a connection that stands, TLS and all.
        if error.is_connect() || error.is_builder() { failure.unsent() } else { failure }
    }
}

/// What one link in an error's chain of causes says.
fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Failure> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.clone());
    }
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return Some(of_tls(tls));
    }
    let io = cause.downcast_ref::<std::io::Error>()?;
    // An I/O error does not show what it wraps as its source, so it is looked into here.
    if let Some(found) = io.get_ref().and_then(|inner| of_cause(inner)) {
        return Some(found);
    }
    match io.kind() {
        std::io::ErrorKind::TimedOut => Some(Failure::new(FailureKind::Timeout, "no answer in time")),
        std::io::ErrorKind::ConnectionRefused => {
            Some(Failure::new(FailureKind::Unreachable, "the connection was refused"))
        }
        std::io::ErrorKind::ConnectionReset
        | std::io::ErrorKind::ConnectionAborted
        | std::io::ErrorKind::BrokenPipe => {
            Some(Failure::new(FailureKind::Unreachable, "the connection was reset"))
        }
        std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => {
            Some(Failure::new(FailureKind::Unreachable, "there is no route to this host"))
        }
        _ => None,
    }
}

fn of_tls(error: &rustls::Error) -> Failure {
    let message = match error {
        rustls::Error::InvalidCertificate(why) => format!("the certificate is not valid: {why:?}"),
        rustls::Error::AlertReceived(alert) => format!("the other side ended TLS: {alert:?}"),
        rustls::Error::InvalidMessage(_) => "the other side does not speak TLS".to_owned(),
        _ => "TLS could not be agreed upon".to_owned(),
    };
    // What stands in parentheses may repeat names out of the certificate; the first words say enough.
    let message = message.split(['{', '(']).next().unwrap_or_default().trim_end().to_owned();
    Failure::new(FailureKind::Tls, message)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

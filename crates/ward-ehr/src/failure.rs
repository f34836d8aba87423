//! The reasons why a call has no usable answer.

use std::error::Error as _;
use std::fmt;

/// The reason why a call has no usable answer. Its sentence never contains a URL, a header or a body, because
/// these may hold secrets or a patient's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind, for a caller's reaction.
    pub kind: FailureKind,
    /// One sentence for the tenant's users.
    pub message: String,
    /// Whether the request may have reached the other side nevertheless.
    pub maybe_sent: bool,
}

/// The kinds of failure that callers treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The configuration cannot work: no URL, a bad key, or an address or scheme that the operator does not
    /// allow.
    Misconfigured,
    /// No connection could be made, or it broke.
    Unreachable,
    /// No answer arrived before the deadline.
    Timeout,
    /// The other side's certificate or TLS is faulty.
    Tls,
    /// The answer is larger than allowed.
    TooLarge,
    /// The answer is not HTTP, or it is incomplete.
    Garbage,
    /// Too many calls of this integration are running.
    Busy,
    /// The other side refused the credentials.
    AuthFailed,
}

impl Failure {
    /// A failure with its sentence. The request counts as possibly sent unless it is known not to be.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), maybe_sent: true }
    }

    /// The same failure, before anything was sent.
    #[must_use]
    pub fn unsent(self) -> Self {
        Self { maybe_sent: false, ..self }
    }

    /// A failure of the kind [`FailureKind::Misconfigured`].
    pub fn misconfigured(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Misconfigured, message)
    }

    /// The kind of failure of an HTTP client's error, without its other details.
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
        // A request is written only on a complete connection, TLS included.
        if error.is_connect() || error.is_builder() { failure.unsent() } else { failure }
    }
}

/// The failure that one link in an error's chain of causes describes.
fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Failure> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.clone());
    }
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return Some(of_tls(tls));
    }
    let io = cause.downcast_ref::<std::io::Error>()?;
    // An I/O error does not return the error that it wraps as its source, so that is examined here.
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
    // The text in parentheses may repeat names from the certificate; the first words are enough.
    let message = message.split(['{', '(']).next().unwrap_or_default().trim_end().to_owned();
    Failure::new(FailureKind::Tls, message)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

//! What a `postgres:` URL says.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use super::tls::{Tls, Trust};
use crate::Error;

/// How long one address may take to accept, unless the URL says otherwise: an address that is gone answers nothing.
const CONNECT: Duration = Duration::from_secs(3);

/// Options that are handed to the driver as they are.
const DRIVER: [&str; 13] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "port",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// Where and how to connect.
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) tls: Tls,
    /// False behind a pooler that gives every transaction another session: no named statement, no session setting.
    pub(super) sessions: bool,
}

impl Target {
    /// Reads a URL. An error names an option and never repeats a value, which may be a password.
    pub(super) fn read(url: &str) -> Result<Self, Error> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let mut options = options(query)?;
        let trust = match options.remove("sslmode").as_deref() {
            Some("disable") => (SslMode::Disable, Trust::Anybody),
            None | Some("prefer") => (SslMode::Prefer, Trust::Anybody),
            Some("require") => (SslMode::Require, Trust::Anybody),
            Some("verify-ca") => (SslMode::Require, Trust::Authority),
            Some("verify-full") => (SslMode::Require, Trust::Name),
            Some(_) => {
                return Err(Error::invalid("sslmode is disable, prefer, require, verify-ca or verify-full"));
            }
        };
        let roots = options.remove("sslrootcert").filter(|file| file != "system").map(PathBuf::from);
        let client = match (options.remove("sslcert"), options.remove("sslkey")) {
            (Some(certificate), Some(key)) => Some((PathBuf::from(certificate), PathBuf::from(key))),
            (None, None) => None,
            _ => return Err(Error::invalid("sslcert and sslkey go together")),
        };
        let sessions = match options.remove("statement_cache").as_deref() {
            None | Some("on") => true,
            Some("off") => false,
            Some(_) => return Err(Error::invalid("statement_cache is on or off")),
        };
        let mut config = driver_config(address, &options)?;
        config.ssl_mode(trust.0);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_application_name().is_none() {
            config.application_name("ward");
        }
        Ok(Self { config, tls: Tls::new(trust.1, roots.as_deref(), client.as_ref())?, sessions })
    }
}

fn options(query: &str) -> Result<HashMap<String, String>, Error> {
    let mut options = HashMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8().map_err(|_| unreadable(name))?;
        options.insert(name.to_owned(), value.into_owned());
    }
    Ok(options)
}

/// The driver reads the address itself, and each further option by name: so the one that it cannot read is known.
fn driver_config(address: &str, options: &HashMap<String, String>) -> Result<Config, Error> {
    let mut known = address.to_owned();
    let mut config = Config::from_str(address).map_err(|_| {
        Error::invalid("the PostgreSQL URL cannot be read: write postgres://USER:PASSWORD@HOST:PORT/DATABASE")
    })?;
    for (name, value) in options {
        if !DRIVER.contains(&name.as_str()) {
            return Err(Error::invalid(format!("a PostgreSQL URL has no option `{name}`")));
        }
        known.push(if known.contains('?') { '&' } else { '?' });
        let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
        // Writing into a String cannot fail.
        let _ = write!(known, "{name}={value}");
        config = Config::from_str(&known).map_err(|_| unreadable(name))?;
    }
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(Error::invalid("a PostgreSQL URL names its host"));
    }
    Ok(config)
}

fn unreadable(name: &str) -> Error {
    Error::invalid(format!("the option `{name}` of the PostgreSQL URL cannot be read"))
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::TargetSessionAttrs;

    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let target = Target::read(
            "postgresql://ward:s%20ecret@one:5433,two:5434/ward?target_session_attrs=read-write&statement_cache=off&application_name=a%20b",
        )
        .unwrap();
        assert_eq!(
            (target.config.get_hosts().len(), target.config.get_ports()),
            (2, [5433, 5434].as_slice())
        );
        assert_eq!(target.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(target.config.get_password(), Some(b"s ecret".as_slice()));
        assert_eq!(target.config.get_application_name(), Some("a b"));
        assert!(!target.sessions);
        assert_eq!(target.config.get_connect_timeout(), Some(&CONNECT));
        let target = Target::read("postgres://ward@host/ward?connect_timeout=7&sslmode=require").unwrap();
        assert_eq!(target.config.get_connect_timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(target.config.get_ssl_mode(), SslMode::Require);
    }

    #[test]
    fn what_cannot_be_read_is_named_without_its_value() {
        for (url, says) in [
            ("postgres://u:hidden@h:port/d", "cannot be read"),
            ("postgres://u:hidden@/d", "names its host"),
            ("postgres://u:hidden@h/d?sslmode=hidden", "sslmode is"),
            ("postgres://u:hidden@h/d?statement_cache=hidden", "statement_cache is"),
            ("postgres://u:hidden@h/d?connect_timeout=hidden", "`connect_timeout`"),
            ("postgres://u:hidden@h/d?pasword=hidden", "no option `pasword`"),
            ("postgres://u:hidden@h/d?sslcert=hidden", "go together"),
            ("postgres://u:hidden@h/d?sslmode=verify-full&sslrootcert=/hid/den", "sslrootcert"),
        ] {
            let error = Target::read(url).err().unwrap();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            assert!(error.to_string().contains(says), "{error}");
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }
}

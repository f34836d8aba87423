//! Parses a `postgres:` URL into its servers and options.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::tls::{Tls, Trust};
use crate::Error;

/// The time limit of one address, unless the URL sets another: an unreachable host never answers.
const CONNECT: Duration = Duration::from_secs(3);

/// Options that are passed to the driver unchanged.
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

/// One of the servers that a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerAddress {
    /// Its name, which is also the name in its certificate.
    pub(super) host: Host,
    /// Its address; looked up by name if the URL does not give it.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(name) => write!(f, "{name}:{}", self.port),
            #[cfg(unix)]
            Host::Unix(folder) => write!(f, "{}:{}", folder.display(), self.port),
        }
    }
}

/// The servers of a URL, and how to connect to them.
pub(super) struct Target {
    /// The options that all servers share; it names no server.
    pub(super) config: Config,
    pub(super) places: Vec<ServerAddress>,
    /// The time limit of one address, from the first packet to a usable session.
    pub(super) connect_time: Duration,
    pub(super) tls: Tls,
    /// False behind a pooler that gives every transaction another session. Limits are then set in each
    /// transaction.
    pub(super) sessions: bool,
    /// Whether statements are prepared by name and kept.
    pub(super) named: bool,
}

impl Target {
    /// Parses a URL. An error names an option and never repeats a value, which may be a password.
    pub(super) fn read(url: &str) -> Result<Self, Error> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let mut options = options(query)?;
        let mode = options.remove("sslmode");
        let roots = options.remove("sslrootcert");
        let trust = match (mode.as_deref(), roots.as_deref()) {
            (None | Some("disable" | "prefer"), Some(_)) => {
                return Err(Error::invalid("sslrootcert is for sslmode require, verify-ca or verify-full"));
            }
            // Any host can get a certificate for its own name from one of the system's authorities.
            (Some("require" | "verify-ca"), Some("system")) => {
                return Err(Error::invalid("sslrootcert=system is for sslmode=verify-full"));
            }
            (Some("disable"), None) => (SslMode::Disable, Trust::Any),
            (None | Some("prefer"), None) => (SslMode::Prefer, Trust::Any),
            (Some("require"), None) => (SslMode::Require, Trust::Any),
            // A URL that names authorities wants them checked, as with PostgreSQL's own clients.
            (Some("require"), Some(_)) | (Some("verify-ca"), _) => (SslMode::Require, Trust::Authority),
            (Some("verify-full"), _) => (SslMode::Require, Trust::Name),
            (Some(_), _) => {
                return Err(Error::invalid("sslmode is disable, prefer, require, verify-ca or verify-full"));
            }
        };
        let roots = roots.filter(|file| file != "system").map(PathBuf::from);
        let client = match (options.remove("sslcert"), options.remove("sslkey")) {
            (Some(certificate), Some(key)) => Some((PathBuf::from(certificate), PathBuf::from(key))),
            (None, None) => None,
            _ => return Err(Error::invalid("sslcert and sslkey go together")),
        };
        let named = match options.remove("statement_cache").as_deref() {
            None | Some("on") => true,
            Some("off") => false,
            Some(_) => return Err(Error::invalid("statement_cache is on or off")),
        };
        let sessions = match options.remove("pooler").as_deref() {
            // A pooler that needs the cache turned off gives every transaction another session.
            None => named,
            Some("none") => true,
            Some("transaction") => false,
            Some(_) => return Err(Error::invalid("pooler is none or transaction")),
        };
        let said = driver_config(address, &options)?;
        let mut config = without_places(&said);
        config.ssl_mode(trust.0);
        if config.get_application_name().is_none() {
            config.application_name("ward");
        }
        // A standby would answer with outdated data, such as keys that were revoked meanwhile.
        if !options.contains_key("target_session_attrs") {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::ReadOnly {
            return Err(Error::invalid(
                "target_session_attrs is read-write or any: this database is written to",
            ));
        }
        Ok(Self {
            config,
            places: places(&said)?,
            connect_time: said
                .get_connect_timeout()
                .copied()
                .filter(|time| !time.is_zero())
                .unwrap_or(CONNECT),
            tls: Tls::new(trust.1, roots.as_deref(), client.as_ref())?,
            sessions,
            named,
        })
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

/// Passes the address and then each option to the driver, so that an error can name the option that the
/// driver rejects.
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

/// The servers that a URL names, in its order.
fn places(config: &Config) -> Result<Vec<ServerAddress>, Error> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = hosts.len().max(addresses.len());
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(Error::invalid("a PostgreSQL URL has as many values of hostaddr as hosts"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(Error::invalid("a PostgreSQL URL has one port, or one for each host"));
    }
    let place = |index: usize| {
        let address = addresses.get(index).copied();
        let host = hosts.get(index).cloned().or_else(|| address.map(|it| Host::Tcp(it.to_string())));
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        host.map(|host| ServerAddress { host, address, port })
    };
    Ok((0..count).filter_map(place).collect())
}

/// The same configuration without its servers.
fn without_places(said: &Config) -> Config {
    let mut config = Config::new();
    config
        .keepalives(said.get_keepalives())
        .keepalives_idle(said.get_keepalives_idle())
        .target_session_attrs(said.get_target_session_attrs())
        .channel_binding(said.get_channel_binding())
        .load_balance_hosts(said.get_load_balance_hosts());
    said.get_user().map(|user| config.user(user));
    said.get_password().map(|password| config.password(password));
    said.get_dbname().map(|database| config.dbname(database));
    said.get_application_name().map(|name| config.application_name(name));
    said.get_tcp_user_timeout().map(|time| config.tcp_user_timeout(*time));
    said.get_keepalives_interval().map(|time| config.keepalives_interval(time));
    said.get_keepalives_retries().map(|count| config.keepalives_retries(count));
    config
}

fn unreadable(name: &str) -> Error {
    Error::invalid(format!("the option `{name}` of the PostgreSQL URL cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let target = Target::read(
            "postgresql://ward:s%20ecret@one:5433,two:5434/ward?target_session_attrs=any&statement_cache=off&application_name=a%20b",
        )
        .unwrap();
        let places: Vec<String> = target.places.iter().map(ToString::to_string).collect();
        assert_eq!(places, ["one:5433", "two:5434"]);
        assert_eq!(target.config.get_target_session_attrs(), TargetSessionAttrs::Any);
        assert_eq!(target.config.get_password(), Some(b"s ecret".as_slice()));
        assert_eq!(target.config.get_application_name(), Some("a b"));
        assert!(!target.sessions && !target.named);
        assert_eq!(target.connect_time, CONNECT);
        let pooled = Target::read("postgres://ward@host/ward?pooler=transaction").unwrap();
        assert!(!pooled.sessions && pooled.named);
        let target = Target::read("postgres://ward@host/ward?connect_timeout=7&sslmode=require").unwrap();
        assert_eq!(target.connect_time, Duration::from_secs(7));
        assert_eq!(target.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(target.config.get_ssl_mode(), SslMode::Require);
    }

    #[test]
    fn what_cannot_be_read_is_named_without_its_value() {
        for (url, says) in [
            ("postgres://u:hidden@h:port/d", "cannot be read"),
            ("postgres://u:hidden@/d", "names its host"),
            ("postgres://u:hidden@h/d?sslmode=hidden", "sslmode is"),
            ("postgres://u:hidden@h/d?target_session_attrs=read-only", "target_session_attrs is"),
            ("postgres://u:hidden@h,i/d?hostaddr=10.0.0.1", "hostaddr"),
            ("postgres://u:hidden@h:1,i:2,j/d?port=3", "port"),
            ("postgres://u:hidden@h/d?statement_cache=hidden", "statement_cache is"),
            ("postgres://u:hidden@h/d?pooler=hidden", "pooler is"),
            ("postgres://u:hidden@h/d?sslmode=prefer&sslrootcert=/hid/den", "sslrootcert is for"),
            ("postgres://u:hidden@h/d?sslmode=require&sslrootcert=system", "verify-full"),
            ("postgres://u:hidden@h/d?sslmode=require&sslrootcert=/hid/den", "sslrootcert"),
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

//! The forms of values that only one setting has, or only the settings of one chapter.

use std::sync::Arc;

use crate::access::Role;
use crate::api_keys::ceilings::{self, Ceiling, ENVIRONMENTS};
use crate::config::platform::REGIONS;
use crate::config::setting::HIDDEN;
use crate::config::value::{ParseResult, items, joined, origin};
use crate::config::{Bucket, Config, Exports};
use crate::text::pasted;

pub(super) fn filter(text: &str) -> ParseResult<String> {
    let read = tracing_subscriber::EnvFilter::try_new(text).map(|_| text.to_owned());
    read.map_err(|_| "must be a level or directives such as info,ward=debug".to_owned())
}

/// A database URL for display, without its password.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let shown = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{scheme}://{name}:{HIDDEN}@{host}{path}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    };
    // libpq also takes the password as a parameter.
    match shown.split_once("password=") {
        Some((before, after)) => {
            let end = after.find('&').unwrap_or(after.len());
            format!("{before}password={HIDDEN}{}", &after[end..])
        }
        None => shown,
    }
}

/// The longest accepted text, in bytes.
const LONGEST: usize = 256;

pub(super) fn word(text: &str) -> ParseResult<String> {
    let text = pasted(text);
    let fits = !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("must be 1 to {LONGEST} printable characters without spaces"))
    }
}

pub(super) fn bucket(config: &Config) -> Option<&Bucket> {
    match &config.exports {
        Some(Exports::Bucket(bucket)) => Some(bucket),
        _ => None,
    }
}

pub(super) fn region(text: &str) -> ParseResult<String> {
    let known = REGIONS.into_iter().find(|known| *known == text.trim());
    known.map(str::to_owned).ok_or_else(|| format!("must be one of the regions {}", REGIONS.join(", ")))
}

pub(super) fn hosts(text: &str) -> ParseResult<Vec<(String, String)>> {
    let mut hosts: Vec<(String, String)> = Vec::new();
    for item in items(text) {
        let form =
            || format!("has {item:?}, which is not REGION=URL such as us-east-1=https://us.ward.example");
        let (name, host) = item.split_once('=').ok_or_else(form)?;
        let (name, host) = (region(name).map_err(|_| form())?, origin(host).map_err(|_| form())?);
        if hosts.iter().any(|(known, _)| *known == name) {
            return Err(format!("names a host of {name} twice"));
        }
        hosts.push((name, host));
    }
    Ok(hosts)
}

/// The setting that configures these hosts.
pub(super) fn show_hosts(hosts: &[(String, String)]) -> String {
    joined(hosts.iter().map(|(region, host)| format!("{region}={host}")))
}

/// Ceilings as `ROLE=DAYS` or `ENVIRONMENT/ROLE=DAYS`.
pub(super) fn ceilings(text: &str) -> ParseResult<Arc<[Ceiling]>> {
    items(text).map(ceiling).collect()
}

fn ceiling(item: &str) -> ParseResult<Ceiling> {
    let read = || {
        let (place, days) = item.split_once('=')?;
        let (environment, role) = match place.split_once('/') {
            Some((environment, role)) => (Some(environment.trim()), role),
            None => (None, place),
        };
        let known = environment.is_none_or(|named| ENVIRONMENTS.contains(&named));
        let days = days.trim().parse().ok().filter(|days| (1..=ceilings::LONGEST).contains(days))?;
        let role = Role::named(role.trim()).filter(|_| known)?;
        Some(Ceiling { environment: environment.map(str::to_owned), role, days })
    };
    read().ok_or_else(|| {
        format!(
            "has {item:?}, which is no ceiling such as owner=30 or production/admin=7: a role, and 1 to {} days",
            ceilings::LONGEST
        )
    })
}

pub(super) fn show_ceilings(ceilings: &[Ceiling]) -> String {
    joined(ceilings.iter().map(|Ceiling { environment, role, days }| match environment {
        Some(environment) => format!("{environment}/{}={days}", role.name()),
        None => format!("{}={days}", role.name()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Platform;

    #[test]
    fn hosts_are_read_by_region() {
        let read =
            hosts("us-east-1=https://us.ward.example, ca-central-1 = https://ca.ward.example:8443 ").unwrap();
        let platform = Platform { region_hosts: read, ..Platform::default() };
        assert_eq!(platform.host_of("us-east-1"), Some("https://us.ward.example"));
        assert_eq!(platform.host_of("ca-central-1"), Some("https://ca.ward.example:8443"));
        assert_eq!(platform.host_of("eu-central-1"), None);
        for wrong in [
            "us-east-1",
            "us-east-1=us.ward.example",
            "mars-1=https://x.example",
            "us-east-1=https://a.example,us-east-1=https://b.example",
        ] {
            assert!(hosts(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for url in [
            "postgres://ward:secret@db:5432/ward?sslmode=require",
            "postgres://ward:sec@ret@db/ward",
            "postgres://db/ward?password=secret&x=1",
        ] {
            let shown = without_password(url);
            assert!(!shown.contains("sec") && shown.contains(HIDDEN), "{shown}");
        }
        assert_eq!(without_password("sqlite:ward.db"), "sqlite:ward.db");
    }
}

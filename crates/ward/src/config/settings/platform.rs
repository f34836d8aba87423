//! The settings of Ward's region, and of the bounds of the platform's later contract.

use crate::config::platform::REGIONS;
use crate::config::setting::Setting;
use crate::config::value::{Read, choice, number, origin};

fn region(text: &str) -> Read<String> {
    let known = REGIONS.into_iter().find(|known| *known == text.trim());
    known.map(str::to_owned).ok_or_else(|| format!("must be one of the regions {}", REGIONS.join(", ")))
}

fn hosts(text: &str) -> Read<Vec<(String, String)>> {
    let mut hosts: Vec<(String, String)> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
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

pub(super) const REGION: Setting = Setting {
    key: "region",
    chapter: "Platform",
    form: "REGION",
    help: "The one region whose workspaces this Ward holds. It then creates no other workspaces, refuses to change a \
           region, and every answer has the header `x-ward-region`. Not set: workspaces of all regions.",
    secret: false,
    apply: |draft, text| {
        draft.config.platform.region = Some(region(text)?);
        Ok(())
    },
    show: |config| config.platform.region.clone().unwrap_or_default(),
};

pub(super) const REGION_HOSTS: Setting = Setting {
    key: "region_hosts",
    chapter: "Platform",
    form: "REGION=URL,...",
    help: "Hosts that serve the other regions, comma-separated. A refusal for a wrong region names the right host.",
    secret: false,
    apply: |draft, text| {
        draft.config.platform.region_hosts = hosts(text)?;
        Ok(())
    },
    show: |config| {
        let hosts = config.platform.region_hosts.iter().map(|(region, host)| format!("{region}={host}"));
        hosts.collect::<Vec<_>>().join(",")
    },
};

pub(super) const ENVIRONMENT_CHANGES: Setting = Setting {
    key: "environment_changes",
    chapter: "Platform",
    form: "convert|patch",
    help: "How a workspace's environment changes. `convert`: only by `convert-environment`, which checks first. `patch`: \
           also by an update, without a check.",
    secret: false,
    apply: |draft, text| {
        draft.config.platform.environment_by_conversion =
            choice(text, &[("convert", true), ("patch", false)])?;
        Ok(())
    },
    show: |config| {
        if config.platform.environment_by_conversion { "convert".to_owned() } else { "patch".to_owned() }
    },
};

pub(super) const LIST_LIMIT_MAX: Setting = Setting {
    key: "list_limit_max",
    chapter: "Platform",
    form: "COUNT",
    help: "The greatest `limit` of lists, in the served document and its validator. The contract says 20.",
    secret: false,
    apply: |draft, text| {
        draft.config.platform.list_limit_max = number(text, 20..=100)?;
        Ok(())
    },
    show: |config| config.platform.list_limit_max.to_string(),
};

pub(super) const TEST_CALLER_LIMIT: Setting = Setting {
    key: "test_caller_limit",
    chapter: "Platform",
    form: "COUNT",
    help: "How many test callers a request may set, in the served document and its validator. The contract \
           says 20.",
    secret: false,
    apply: |draft, text| {
        draft.config.platform.test_caller_limit = number(text, 20..=100)?;
        Ok(())
    },
    show: |config| config.platform.test_caller_limit.to_string(),
};

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
}

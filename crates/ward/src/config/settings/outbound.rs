//! The settings of outbound calls, and of the previous keys that open the credentials for them.

use std::net::{IpAddr, SocketAddr};

use crate::config::FormerKey;
use crate::config::setting::{HIDDEN, HOUR, Setting, TENTH, key_bytes, path};
use crate::config::value::{choice, duration, networks, number, show_duration, show_list, show_size, size};
use crate::quotas::Quota;
use crate::text::pasted;

pub(super) const FORMER_MASTER_KEYS: Setting = Setting {
    key: "former_master_keys",
    chapter: "Secrets",
    form: "BASE64,...",
    help: "Previous keys, comma-separated, each as `master_key`. They open values that were sealed before. `ward secrets \
           rotate` makes them unnecessary.",
    secret: true,
    apply: |draft, text| {
        let keys = text.split(',').map(pasted).filter(|text| !text.is_empty());
        draft.config.former_master_keys = keys
            .map(|text| key_bytes(text).map(FormerKey))
            .collect::<Result<_, _>>()
            .map_err(|_| "must be keys of 32 bytes in base64, with commas between".to_owned())?;
        Ok(())
    },
    show: |config| {
        if config.former_master_keys.is_empty() { String::new() } else { HIDDEN.to_owned() }
    },
};

pub(super) const FORMER_MASTER_KEY_FILES: Setting = Setting {
    key: "former_master_key_files",
    chapter: "Secrets",
    form: "FILES",
    help: "Files with previous keys, comma-separated, each as `master_key_file`.",
    secret: false,
    apply: |draft, text| {
        let files = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        draft.config.former_master_key_files = files.map(path).collect::<Result<_, _>>()?;
        Ok(())
    },
    show: |config| {
        let files = config.former_master_key_files.iter();
        files.map(|file| file.display().to_string()).collect::<Vec<_>>().join(",")
    },
};

pub(super) const ALLOW: Setting = Setting {
    key: "outbound_allow",
    chapter: "Outbound calls",
    form: "NETWORKS",
    help: "Networks that integrations may use although they are not globally routable, comma-separated. Other addresses \
           there are refused, because tenants choose them and this server stands inside your network.",
    secret: false,
    apply: |draft, text| {
        draft.config.outbound.allow = networks(text)?;
        Ok(())
    },
    show: |config| show_list(&config.outbound.allow),
};

pub(super) const PLAIN_HTTP: Setting = Setting {
    key: "outbound_plain_http",
    chapter: "Outbound calls",
    form: "on|off",
    help: "Whether integrations may be called over http without TLS, which sends their credentials in clear text.",
    secret: false,
    apply: |draft, text| {
        draft.config.outbound.plain_http = choice(text, &[("on", true), ("off", false)])?;
        Ok(())
    },
    show: |config| if config.outbound.plain_http { "on".to_owned() } else { "off".to_owned() },
};

pub(super) const TIME: Setting = Setting {
    key: "outbound_time",
    chapter: "Outbound calls",
    form: "TIME",
    help: "Time limit of one call, retries and token requests included. At most the time that `request_time` leaves.",
    secret: false,
    apply: |draft, text| {
        draft.config.outbound.time = duration(text, TENTH..=HOUR)?;
        Ok(())
    },
    show: |config| show_duration(config.outbound.time),
};

pub(super) const BODY_BYTES: Setting = Setting {
    key: "outbound_body_bytes",
    chapter: "Outbound calls",
    form: "SIZE",
    help: "Largest answer that Ward reads; a larger one is an error of the call.",
    secret: false,
    apply: |draft, text| {
        draft.config.outbound.body_bytes = size(text, 1024..=1 << 26)?;
        Ok(())
    },
    show: |config| show_size(config.outbound.body_bytes),
};

pub(super) const CONCURRENCY: Setting = Setting {
    key: "outbound_concurrency",
    chapter: "Outbound calls",
    form: "COUNT",
    help: "Concurrent calls of one integration, on one replica.",
    secret: false,
    apply: |draft, text| {
        draft.config.outbound.concurrency = number(text, 1..=1024)?;
        Ok(())
    },
    show: |config| config.outbound.concurrency.to_string(),
};

pub(super) const LANES: Setting = Setting {
    key: "delivery_lanes",
    chapter: "Outbound calls",
    form: "COUNT",
    help: "Integrations whose deliveries are sent at once, on one replica; each has up to 4 connections. One workspace gets \
           at most a sixteenth of them, and slow or failing integrations together get half.",
    secret: false,
    apply: |draft, text| {
        draft.config.outbound.lanes = number(text, 1..=10_000)?;
        Ok(())
    },
    show: |config| config.outbound.lanes.to_string(),
};

pub(super) const CALLS: Setting = Setting {
    key: "outbound_calls",
    chapter: "Outbound calls",
    form: "COUNT",
    help: "Concurrent endpoint tests and health checks of all workspaces, on one replica. Workspaces take turns.",
    secret: false,
    apply: |draft, text| {
        draft.config.outbound.calls = number(text, 1..=100_000)?;
        Ok(())
    },
    show: |config| config.outbound.calls.to_string(),
};

pub(super) const CALLS_PER_WORKSPACE: Setting = Setting {
    key: "outbound_calls_per_workspace",
    chapter: "Outbound calls",
    form: "COUNT",
    help: "Concurrent endpoint tests and health checks of one workspace, on one replica. Up to 64 more wait; \
           beyond them the workspace gets 429.",
    secret: false,
    apply: |draft, text| {
        draft.config.quotas.set(Quota::OutboundCalls, number(text, 1..=100_000)?);
        Ok(())
    },
    show: |config| config.quotas.of(Quota::OutboundCalls).to_string(),
};

pub(super) const MEMORY: Setting = Setting {
    key: "outbound_memory",
    chapter: "Outbound calls",
    form: "SIZE",
    help: "Memory for parsed answers of endpoint tests, over all workspaces, on one replica. One workspace may use \
           a quarter of it; an answer that needs more is an error of its call.",
    secret: false,
    apply: |draft, text| {
        draft.config.outbound.memory = size(text, 16 << 20..=1 << 36)?;
        Ok(())
    },
    show: |config| show_size(config.outbound.memory),
};

pub(super) const NAME_SERVERS: Setting = Setting {
    key: "outbound_name_servers",
    chapter: "Outbound calls",
    form: "ADDRESSES",
    help: "Name servers for the hosts of integrations, comma-separated, each an address with or \
           without a port. Default: those of /etc/resolv.conf. Entries of /etc/hosts apply in either case.",
    secret: false,
    apply: |draft, text| {
        let servers = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        let server = |text: &str| {
            text.parse().or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53)))
        };
        draft.config.outbound.name_servers = servers
            .map(server)
            .collect::<Result<_, _>>()
            .map_err(|_| "must be addresses such as 192.0.2.53 or [2001:db8::53]:5353".to_owned())?;
        Ok(())
    },
    show: |config| show_list(&config.outbound.name_servers),
};

pub(super) const CA_FILE: Setting = Setting {
    key: "outbound_ca_file",
    chapter: "Outbound calls",
    form: "FILE",
    help: "PEM file of certificate authorities that are trusted in addition to the system's.",
    secret: false,
    apply: |draft, text| {
        draft.config.outbound.ca_file = Some(path(text)?);
        Ok(())
    },
    show: |config| {
        config.outbound.ca_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default()
    },
};

//! The settings that say where exports are stored.

use zeroize::Zeroizing;

use crate::config::setting::{HIDDEN, Setting, path};
use crate::config::value::{Read, origin};
use crate::config::{Bucket, Config, Exports};
use crate::text::pasted;

/// The longest accepted text, in bytes.
const LONGEST: usize = 256;

fn word(text: &str) -> Read<String> {
    let text = pasted(text);
    let fits = !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("must be 1 to {LONGEST} printable characters without spaces"))
    }
}

fn bucket(config: &Config) -> Option<&Bucket> {
    match &config.exports {
        Some(Exports::Bucket(bucket)) => Some(bucket),
        _ => None,
    }
}

pub(super) const DIR: Setting = Setting {
    key: "export_dir",
    chapter: "Exports",
    form: "FOLDER",
    help: "Folder for exports of audit events, created if missing. Replicas need a shared one. Without this or \
           `export_s3_bucket`, exports are off.",
    secret: false,
    apply: |draft, text| {
        draft.export_dir = Some(path(text)?);
        Ok(())
    },
    show: |config| match &config.exports {
        Some(Exports::Folder(folder)) => folder.display().to_string(),
        _ => String::new(),
    },
};

pub(super) const BUCKET: Setting = Setting {
    key: "export_s3_bucket",
    chapter: "Exports",
    form: "NAME",
    help: "Bucket of an S3-compatible store for exports of audit events.",
    secret: false,
    apply: |draft, text| {
        draft.export_bucket.name = word(text)?;
        Ok(())
    },
    show: |config| bucket(config).map(|bucket| bucket.name.clone()).unwrap_or_default(),
};

pub(super) const ENDPOINT: Setting = Setting {
    key: "export_s3_endpoint",
    chapter: "Exports",
    form: "URL",
    help: "Scheme and authority of that store, if it is not Amazon's.",
    secret: false,
    apply: |draft, text| {
        draft.export_bucket.endpoint = Some(origin(text)?);
        Ok(())
    },
    show: |config| bucket(config).and_then(|bucket| bucket.endpoint.clone()).unwrap_or_default(),
};

pub(super) const REGION: Setting = Setting {
    key: "export_s3_region",
    chapter: "Exports",
    form: "NAME",
    help: "Region of the bucket; without it, `us-east-1`.",
    secret: false,
    apply: |draft, text| {
        draft.export_bucket.region = Some(word(text)?);
        Ok(())
    },
    show: |config| bucket(config).and_then(|bucket| bucket.region.clone()).unwrap_or_default(),
};

pub(super) const ACCESS_KEY: Setting = Setting {
    key: "export_s3_access_key_id",
    chapter: "Exports",
    form: "ID",
    help: "Id of the access key. Without one, the role of the machine is used.",
    secret: false,
    apply: |draft, text| {
        draft.export_bucket.access_key_id = Some(word(text)?);
        Ok(())
    },
    show: |config| bucket(config).and_then(|bucket| bucket.access_key_id.clone()).unwrap_or_default(),
};

pub(super) const SECRET_KEY: Setting = Setting {
    key: "export_s3_secret_access_key",
    chapter: "Exports",
    form: "SECRET",
    help: "Secret of the access key.",
    secret: true,
    apply: |draft, text| {
        draft.export_bucket.secret_access_key = Some(Zeroizing::new(word(text)?));
        Ok(())
    },
    show: |config| {
        let secret = bucket(config).is_some_and(|bucket| bucket.secret_access_key.is_some());
        if secret { HIDDEN.to_owned() } else { String::new() }
    },
};

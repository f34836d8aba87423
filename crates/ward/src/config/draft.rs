//! The settings while they are being read.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{Bucket, Config, RatesMode};

/// The configuration so far. Settings that only make sense together are kept apart until all are read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) rates: RatesMode,
    pub(super) bootstrap: Option<BootstrapMode>,
    pub(super) bootstrap_token: Option<Zeroizing<String>>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) master_key: Option<Zeroizing<[u8; 32]>>,
    pub(super) master_key_file: Option<PathBuf>,
    pub(super) export_dir: Option<PathBuf>,
    pub(super) export_bucket: Bucket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BootstrapMode {
    Open,
    Token,
    Closed,
}

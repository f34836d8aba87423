//! A running Ward: the state that requests share, and the tasks beside them.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use ward_contract::{Contract, ContractError};
use ward_db::{Db, Tx};

use crate::api_keys::{LastUsed, MalformedProofs};
use crate::audit::exports::objects::ExportStore;
use crate::audit::refusals::Refusals;
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError};
use crate::deliveries;
use crate::error::ApiError;
use crate::gate::limits::ClientRates;
use crate::identity::issuers::{FetchError, Issuers};
use crate::identity::proof::RecentProofs;
use crate::ids::WorkspaceId;
use crate::integrations::outbound::client::Wire;
use crate::quotas::rate::RequestRates;
use crate::shares::{Holder, Shares};
use crate::trust_rules::issuers::WorkloadIssuers;
use crate::vault::{self, Vault, VaultError};
use crate::work::Work;
use crate::workspaces::slugs::FormerSlugUses;

/// The reason why Ward did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be opened or migrated.
    #[error("the database cannot be used: {0}")]
    Database(#[from] ward_db::Error),
    /// The document and the code contradict each other.
    #[error("the contract does not hold: {0}")]
    Contract(#[from] ContractError),
    /// The store of exports cannot be opened.
    #[error("the store of exports cannot be used: {0}")]
    Exports(#[from] object_store::Error),
    /// A setting is wrong or a key's file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client for the issuers' keys cannot be created.
    #[error("issuers: {0}")]
    Issuers(#[from] FetchError),
    /// The database's encoding cannot represent every text.
    #[error(
        "the database's encoding is {0}, which cannot hold every name. Make one in UTF-8 (CREATE DATABASE ward ENCODING 'UTF8' \
         TEMPLATE template0), and move the data there"
    )]
    Encoding(String),
    /// The schema is older than this binary, and this command does not migrate.
    #[error(
        "the database's schema is older than this Ward: {} steps are missing, the first is {}. Run `ward migrate`, or \
         restart the server with this Ward, then run the command again", .0.len(), .0.first().map_or("", |step| step)
    )]
    OldSchema(Vec<String>),
    /// The operator's key is not usable.
    #[error("the master key cannot be used: {0}")]
    Vault(#[from] VaultError),
    /// The database was used with another key.
    #[error(
        "the master key is not the one that this database was first used with. \
         Its sealed values could not be opened, so Ward does not start. Configure the right key. During a rotation, \
         every replica needs the previous keys in former_master_keys"
    )]
    OtherMasterKey,
}

/// The access of a command to the database and to the operator's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandAccess {
    /// The command only reads, and needs no key.
    Read,
    /// The command writes, but needs no key.
    Write,
    /// The command opens or seals secrets, and needs the key that the database is used with.
    Seal,
    /// The command changes state that a server relies on, so no server may run on the file. It uses the
    /// keys that are available.
    Alone,
}

/// The settings, the database and the shared state of one Ward process.
pub struct App {
    /// The settings, after all sources are merged and checked.
    pub config: Config,
    pub db: Db,
    /// The source of every timestamp, which tests can stop.
    pub clock: Clock,
    /// The document that is served and that validates requests.
    pub contract: Contract,
    /// Rates per client; `None` if they are off.
    pub rates: Option<ClientRates>,
    /// The issuers whose tokens are accepted.
    pub issuers: Arc<Issuers>,
    /// The issuers that trust rules name.
    pub workload_issuers: WorkloadIssuers,
    /// The operator's keys, which seal and open secrets.
    pub vault: Arc<Vault>,
    /// The only client for outbound calls.
    pub wire: Wire,
    /// The pool of CPU work whose amount a tenant decides.
    pub work: Work,
    /// The pool of memory for the bodies of requests.
    pub bodies: Shares,
    /// The engine's long readers, shared by workspaces. A request takes a share before a long read.
    pub long_reads: Shares,
    /// Requests that held a runtime thread for too long.
    #[cfg(feature = "watch")]
    pub watch: crate::http::watch::Watch,
    /// Refusals that wait for the next flush.
    pub refusals: Refusals,
    /// Malformed proofs of keys whose workspaces the next flush looks up.
    pub malformed_proofs: MalformedProofs,
    /// Last uses that wait for the next flush.
    pub last_used: LastUsed,
    /// Last look-ups by former slugs that wait for the next flush.
    pub former_slugs_used: FormerSlugUses,
    /// The last DPoP proofs that this server accepted.
    pub recent_proofs: RecentProofs,
    /// The address of the API, once the listener is bound.
    pub listening: OnceLock<SocketAddr>,
    /// Wakes and stops the delivery workers.
    pub sync: deliveries::Wake,
    /// Requests per second of each workspace.
    pub request_rates: RequestRates,
    /// The 403s of each workspace in the current second.
    pub forbidden_rates: RequestRates,
    /// Wakes the task that closes the rows of endings.
    pub ended: Notify,
    /// The store of exports; `None` if exports are off.
    pub exports: Option<ExportStore>,
    /// The share that each export holds while this replica writes it.
    pub export_shares: Shares,
    /// Wakes and stops the export worker.
    pub export_wake: deliveries::Wake,
    /// The share that each comparison with Twilio's list holds while this replica makes it.
    pub reconcile_shares: Shares,
    /// Wakes the worker of those comparisons.
    pub reconcile_wake: deliveries::Wake,
    pub(crate) tasks: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) flushing: tokio::sync::Mutex<()>,
    pub(crate) delivering: Mutex<Option<JoinHandle<()>>>,
}

impl App {
    /// Refuses a database that may have values sealed under a key that is not configured. The first server
    /// to come records its key.
    pub async fn check_master_key(&self) -> Result<(), OpenError> {
        let known = self.vault.check_values();
        let noted =
            self.db.write("vault.note_check_value", move |tx| vault::note_check_value(tx, &known)).await?;
        if noted { Ok(()) } else { Err(OpenError::OtherMasterKey) }
    }

    /// Notes the address at which the API listens, so that no integration calls it.
    pub fn listens_at(&self, address: SocketAddr) {
        self.wire.listens_at(address);
        let _ = self.listening.set(address);
    }

    /// Runs a long read for a workspace, when a reader is free for it.
    ///
    /// # Errors
    /// 429 if too many long reads of this workspace are waiting, and the closure's own errors.
    pub async fn read_long<T, E>(
        &self,
        workspace: WorkspaceId,
        name: &'static str,
        read: impl FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: From<ward_db::Error> + Into<ApiError> + Send + 'static,
    {
        let share = self.long_reads.take(Holder::Workspace(workspace), 1).await;
        let _share = share.map_err(ApiError::share_used_up)?;
        self.db.read_long(name, read).await.map_err(Into::into)
    }
}

/// The keys that the settings name. It creates no file.
pub(crate) fn vault_of(config: &Config) -> Result<Vault, OpenError> {
    let former = config::load_former_keys(config)?;
    let former = former.iter().map(|key| &**key);
    Ok(Vault::with_former(&*config::load_master_key(&config.master_key)?, former)?)
}

/// As `vault_of`, but without a current key if its file does not exist or the settings name none.
pub fn keys_at_hand(config: &Config) -> Result<Vault, OpenError> {
    let former = config::load_former_keys(config)?;
    let former = former.iter().map(|key| &**key);
    Ok(match config::find_master_key(&config.master_key)? {
        Some(key) => Vault::with_former(&key, former)?,
        None => Vault::without_key(former)?,
    })
}

//! The settings that say where exports are stored.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

#[derive(Clone, Debug)]
pub enum Exports {
    /// A folder of the file system.
    Folder(PathBuf),
    Bucket(Bucket),
}

#[derive(Clone, Default)]
pub struct Bucket {
    /// The bucket's name; never empty once the settings are resolved.
    pub name: String,
    /// The store's URL; `None` for Amazon's.
    pub endpoint: Option<String>,
    /// The bucket's region; `None` for `us-east-1`.
    pub region: Option<String>,
    /// The id of the access key. `None`: the role of the machine is used.
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Zeroizing<String>>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("name", &self.name)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

//! The store of exports: a folder, or a bucket of an S3-compatible store.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, WriteMultipart};

use super::named_by;
use crate::config::Exports;

#[derive(Clone, Debug)]
pub struct ExportStore {
    store: Arc<dyn ObjectStore>,
    /// The folder, if exports go to one. The store neither lists nor removes the unfinished files in it.
    folder: Option<PathBuf>,
}

/// The bytes of one part of an upload: the smallest part that S3 accepts, because each upload holds two in memory.
const PART: usize = 5 << 20;
/// Parts of one upload in flight at once.
const PARTS_AT_ONCE: usize = 1;

impl ExportStore {
    /// Opens the store. A missing folder is created, readable by its owner only.
    pub fn open(exports: &Exports) -> Result<Self, Error> {
        let generic = |source| Error::Generic { store: "exports", source };
        let mut place = None;
        let store: Arc<dyn ObjectStore> = match exports {
            Exports::Folder(folder) => {
                make_private(folder).map_err(|error| {
                    let folder = folder.display();
                    generic(format!("the folder {folder} of the setting `export_dir`: {error}").into())
                })?;
                place = Some(folder.clone());
                Arc::new(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true))
            }
            Exports::Bucket(bucket) => {
                let mut builder = AmazonS3Builder::new().with_bucket_name(&bucket.name);
                if let Some(endpoint) = &bucket.endpoint {
                    builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http:"));
                }
                if let Some(region) = &bucket.region {
                    builder = builder.with_region(region);
                }
                if let (Some(id), Some(secret)) = (&bucket.access_key_id, &bucket.secret_access_key) {
                    builder = builder.with_access_key_id(id).with_secret_access_key(secret.as_str());
                }
                Arc::new(builder.build()?)
            }
        };
        Ok(Self { store, folder: place })
    }

    /// Begins a file, which becomes visible only when it is finished. It first removes the leftovers of earlier attempts at
    /// this file, which only the holder of the export's lease writes.
    pub(super) async fn begin(&self, key: &str) -> Result<Upload, Error> {
        if let Some(folder) = &self.folder {
            let file = folder.join(key);
            blocking(move || remove_unfinished(&file)).await?;
        }
        let upload = self.store.put_multipart(&Path::from(key)).await?;
        Ok(Upload(WriteMultipart::new_with_chunk_size(upload, PART)))
    }

    /// The content of a file, as a stream.
    pub(super) async fn read(&self, key: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        Ok(self.store.get(&Path::from(key)).await?.into_stream())
    }

    /// Removes a file. A missing file is no error.
    pub(super) async fn remove(&self, key: &str) -> Result<(), Error> {
        match self.store.delete(&Path::from(key)).await {
            Err(Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes the unfinished files of all exports whose last change is that long ago.
    pub(super) async fn sweep(&self, age: Duration) -> Result<(), Error> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        blocking(move || sweep(&folder, age)).await
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), Error> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
    done.map_err(|error| Error::Generic { store: "exports", source: Box::new(error) })
}

/// The finished file's name, if this is the name of an unfinished one: the store adds `#` and a number.
fn unfinished(name: &OsStr) -> Option<&str> {
    let (finished, number) = name.to_str()?.rsplit_once('#')?;
    let ours = named_by(finished).is_some() && number.bytes().all(|byte| byte.is_ascii_digit());
    ours.then_some(finished)
}

fn remove_unfinished(file: &std::path::Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { return Ok(()) };
    for entry in entries(folder)? {
        let entry = entry?;
        if unfinished(&entry.file_name()).is_some_and(|finished| name == finished) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn sweep(folder: &std::path::Path, age: Duration) -> io::Result<()> {
    for workspace in entries(folder)? {
        let workspace = workspace?;
        if !workspace.file_type()?.is_dir() {
            continue;
        }
        for entry in entries(&workspace.path())? {
            let entry = entry?;
            if unfinished(&entry.file_name()).is_none() {
                continue;
            }
            // A time in the future means that the clock was set back, so the file stays.
            let written = entry.metadata()?.modified()?;
            if written.elapsed().is_ok_and(|since| since >= age) {
                remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// The entries of a folder. A missing folder has none.
fn entries(folder: &std::path::Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries?),
    };
    Ok(entries.into_iter().flatten())
}

fn remove(file: &std::path::Path) -> io::Result<()> {
    tracing::info!(file = %file.display(), "an unfinished file of an export was left by an earlier attempt and is removed");
    match fs::remove_file(file) {
        // The file's writer or another replica removed it first.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn make_private(folder: &std::path::Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// A file that is being written.
pub(super) struct Upload(WriteMultipart);

impl Upload {
    /// Appends bytes, and waits while too many parts are in flight.
    pub(super) async fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.0.wait_for_capacity(PARTS_AT_ONCE).await?;
        self.0.write(bytes);
        Ok(())
    }

    /// Makes the file visible under its name. Before that, no reader sees any part of it.
    pub(super) async fn finish(self) -> Result<(), Error> {
        self.0.finish().await.map(drop)
    }

    pub(super) async fn abort(self) {
        if let Err(error) = self.0.abort().await {
            tracing::warn!(%error, "cannot abort the upload of an unfinished export; its parts may stay in the store");
        }
    }
}

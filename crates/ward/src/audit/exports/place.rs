//! The store of exports: a folder, or a bucket of an S3-compatible store.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, WriteMultipart};

use crate::config::Exports;

/// An open store of exports.
#[derive(Clone, Debug)]
pub struct Place(Arc<dyn ObjectStore>);

/// Bytes of one part of an upload.
const PART: usize = 8 << 20;
/// Parts of one upload in flight at once.
const PARTS_AT_ONCE: usize = 2;

impl Place {
    /// Opens the store. A missing folder is created, readable by its owner only.
    pub fn open(exports: &Exports) -> Result<Self, Error> {
        let generic = |source| Error::Generic { store: "exports", source };
        Ok(Self(match exports {
            Exports::Folder(folder) => {
                make_private(folder).map_err(|error| generic(Box::new(error)))?;
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
        }))
    }

    /// Begins a file, which becomes visible only when it is finished.
    pub(super) async fn begin(&self, key: &str) -> Result<Upload, Error> {
        let upload = self.0.put_multipart(&Path::from(key)).await?;
        Ok(Upload(WriteMultipart::new_with_chunk_size(upload, PART)))
    }

    /// The content of a file, as a stream.
    pub(super) async fn read(&self, key: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        Ok(self.0.get(&Path::from(key)).await?.into_stream())
    }

    /// Removes a file. A missing file is no error.
    pub(super) async fn remove(&self, key: &str) -> Result<(), Error> {
        match self.0.delete(&Path::from(key)).await {
            Err(Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn make_private(folder: &std::path::Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
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

    /// Makes the file visible.
    pub(super) async fn finish(self) -> Result<(), Error> {
        self.0.finish().await.map(drop)
    }

    pub(super) async fn abort(self) {
        if let Err(error) = self.0.abort().await {
            tracing::warn!(%error, "cannot abort the upload of an unfinished export; its parts may stay in the store");
        }
    }
}

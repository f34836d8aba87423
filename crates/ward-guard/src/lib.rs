//! Types that make a forgotten lock or a forgotten authorization an error of the compiler.
//!
//! A function that writes takes a [`Guarded`] transaction instead of a plain one, and only taking the lock makes one. A
//! route takes a [`Handler`], and only a function that receives an [`Authorized`] value makes one. This crate knows no
//! database, no HTTP and no product. So a test compiles each mistake within a second and compares the compiler's message.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// A way to take the lock of a row in a transaction `T`.
///
/// An implementation runs the statement that locks. It is written beside the SQL of that row.
pub trait Lock<T: ?Sized> {
    /// The row that is locked afterwards.
    type Row;
    /// The error of the statement that locks.
    type Error;

    /// Locks the row until the transaction ends.
    fn lock(self, tx: &mut T) -> Result<Self::Row, Self::Error>;
}

/// A transaction that holds the lock of the row `row`. It can be used like the transaction itself.
///
/// Its lifetime is a borrow of the transaction, so it cannot be used in another one.
pub struct Guarded<'a, T: ?Sized, K> {
    tx: &'a mut T,
    row: K,
}

impl<'a, T: ?Sized, K: Copy> Guarded<'a, T, K> {
    /// Takes the lock, which the transaction keeps until its end.
    pub fn take<L: Lock<T, Row = K>>(tx: &'a mut T, lock: L) -> Result<Self, L::Error> {
        let row = lock.lock(tx)?;
        Ok(Self { tx, row })
    }

    /// The key of the locked row.
    pub const fn row(&self) -> K {
        self.row
    }
}

impl<T: ?Sized, K> Deref for Guarded<'_, T, K> {
    type Target = T;

    fn deref(&self) -> &T {
        self.tx
    }
}

impl<T: ?Sized, K> DerefMut for Guarded<'_, T, K> {
    fn deref_mut(&mut self) -> &mut T {
        self.tx
    }
}

/// The result of an authorization, which a handler receives beside its request `R`.
pub trait Authorized<R>: Sized {
    /// Whether the operation must be open to all callers. Its handler then learns nothing about the caller.
    const OPEN: bool = false;
    /// The refusal of a request that is not authorized.
    type Error;

    /// Authorizes the request, or refuses it.
    fn authorize(request: &mut R) -> impl Future<Output = Result<Self, Self::Error>> + Send;
}

/// A function that serves requests `R` and receives their authorization `A`.
pub struct Handler<R, A, H> {
    serve: H,
    kind: PhantomData<fn(R) -> A>,
}

impl<R, A, H, F, O> Handler<R, A, H>
where
    A: Authorized<R>,
    H: Fn(R, A) -> F,
    F: Future<Output = Result<O, A::Error>>,
{
    /// The handler `serve`. A function without the authorization as its second argument is not accepted.
    pub const fn new(serve: H) -> Self {
        Self { serve, kind: PhantomData }
    }

    /// Authorizes the request and then serves it.
    pub async fn call(&self, mut request: R) -> Result<O, A::Error> {
        let authorized = A::authorize(&mut request).await?;
        (self.serve)(request, authorized).await
    }
}

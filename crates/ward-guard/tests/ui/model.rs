//! A database, two guard rows, a store and a router, as small as possible.

#![allow(dead_code, reason = "each case uses its own part")]

use ward_guard::{Authorized, Guarded, Handler, Lock};

pub struct Tx;

#[derive(Clone, Copy)]
pub struct Workspace;

#[derive(Clone, Copy)]
pub struct Principal;

impl Lock<Tx> for Workspace {
    type Row = Self;
    type Error = ();

    fn lock(self, _: &mut Tx) -> Result<Self, ()> {
        Ok(self)
    }
}

impl Lock<Tx> for Principal {
    type Row = Self;
    type Error = ();

    fn lock(self, _: &mut Tx) -> Result<Self, ()> {
        Ok(self)
    }
}

/// A read, which needs no lock.
pub fn read(_: &mut Tx) {}

/// A write, which needs the lock of the workspace.
pub fn rename(_: &mut Guarded<'_, Tx, Workspace>, _: &str) {}

pub struct Request;

pub struct Entry(());

impl Authorized<Request> for Entry {
    type Error = ();

    async fn authorize(_: &mut Request) -> Result<Self, ()> {
        Ok(Self(()))
    }
}

pub fn route<A, H, F>(serve: H)
where
    A: Authorized<Request, Error = ()>,
    H: Fn(Request, A) -> F,
    F: Future<Output = Result<(), ()>>,
{
    let _ = Handler::new(serve);
}

#[path = "model.rs"]
mod model;

use model::{Entry, Principal, Request, Tx, Workspace, read, rename, route};
use ward_guard::Guarded;

fn write(tx: &mut Tx) -> Result<(), ()> {
    let mut held = Guarded::take(tx, Workspace)?;
    rename(&mut held, "new");
    read(&mut held);
    Guarded::take(tx, Principal)?;
    Ok(())
}

async fn list(_: Request, _: Entry) -> Result<(), ()> {
    Ok(())
}

fn main() {
    assert_eq!(write(&mut Tx), Ok(()));
    route(list);
}

#[path = "model.rs"]
mod model;

use model::{Principal, Tx, rename};
use ward_guard::Guarded;

fn write(tx: &mut Tx) -> Result<(), ()> {
    let mut held = Guarded::take(tx, Principal)?;
    rename(&mut held, "new");
    Ok(())
}

fn main() {}

#[path = "model.rs"]
mod model;

use model::{Tx, Workspace, rename};
use ward_guard::Guarded;

fn write(tx: &mut Tx) {
    rename(&mut Guarded { tx, row: Workspace }, "new");
}

fn main() {}

#[path = "model.rs"]
mod model;

use model::{Tx, rename};

fn write(tx: &mut Tx) {
    rename(tx, "new");
}

fn main() {}

#[path = "model.rs"]
mod model;

use model::{Request, route};

async fn list(_: Request) -> Result<(), ()> {
    Ok(())
}

fn main() {
    route(list);
}

//! The order of work that waits.

use std::sync::Arc;

use parking_lot::Mutex;
use ward_db::{Error, Options, in_background_for};
use ward_test_db::both;

use crate::support::{fast, fixture_with};

both!(the_background_writes_of_a_tenant_do_not_wait_behind_those_of_another);
async fn the_background_writes_of_a_tenant_do_not_wait_behind_those_of_another() {
    let it = fixture_with(Options { connections: 1, write_batch: 1, ..fast() });
    it.tables("create table t (a bigint not null primary key)");
    let held = it.hold().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for tenant in [1_u8, 1, 1, 1, 1, 1, 2] {
        let (db, order) = (it.db.clone(), order.clone());
        let write = async move {
            let note = move |_: &mut ward_db::Tx<'_>| {
                order.lock().push(tenant);
                Ok::<_, Error>(())
            };
            db.write("t.settle", note).await
        };
        waiting.push(tokio::spawn(in_background_for(tenant.into(), write)));
        // The runtime has one thread, so the write is queued now.
        tokio::task::yield_now().await;
    }
    held.release().await;
    for write in waiting {
        write.await.unwrap().unwrap();
    }
    assert_eq!(*order.lock(), [1, 2, 1, 1, 1, 1, 1]);
}

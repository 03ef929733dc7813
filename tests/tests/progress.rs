//! What tasks say while they run, through a real mesh.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_client::{ProgressKind, Update};
use pinmesh_tests::Mesh;

fn number(update: &Update) -> u64 {
    String::from_utf8_lossy(&update.value).parse().unwrap()
}

#[test]
fn a_client_hears_all_that_its_tasks_emit_in_order_before_their_results() {
    let mesh = Mesh::start(2, &[]);
    let client = mesh.client();
    let task = client.task("steps").keep_updates();
    let submit = |_| task.submit_raw(b"500".to_vec()).unwrap();
    let handles: Vec<_> = (0..20).map(submit).collect();
    for handle in handles {
        let mut updates: Vec<Update> = handle.updates().collect();
        let last = updates.pop().unwrap();
        assert_eq!((last.kind, number(&last)), (ProgressKind::Latest, 500));
        assert!(updates.iter().map(number).eq(1..=500));
        assert_eq!(&*handle.wait().unwrap(), b"500");
    }
    let ledger = mesh.broker.ledger();
    assert_eq!((ledger.count("updates"), ledger.count("stale_updates")), (20 * 501, 0));
}

#[test]
fn a_second_attempt_begins_anew_under_a_number_of_its_own() {
    let mesh = Mesh::start(1, &[]);
    let client = mesh.client();
    let handle = client.task("steps").keep_updates().submit_raw(b"50!".to_vec()).unwrap();
    let updates: Vec<Update> = handle.updates().collect();
    assert_eq!(&*handle.wait().unwrap(), b"50!");
    // What the first one said just before it died may be lost with it.
    let (first, second): (Vec<_>, Vec<_>) = updates.iter().partition(|it| it.dispatch == 1);
    assert!(first.iter().map(|it| number(it)).eq(1..=first.len() as u64), "in order");
    assert!(second.iter().all(|it| it.dispatch == 2));
    assert!(second.iter().map(|it| number(it)).eq((1..=50).chain([50])));
}

#[test]
fn the_command_shows_what_a_task_says() {
    let mesh = Mesh::start(1, &[]);
    let finished = mesh.pinmesh(["call", "steps", "3", "--progress"]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_eq!(finished.stderr.lines().collect::<Vec<_>>(), ["1", "2", "3", "3"]);
}

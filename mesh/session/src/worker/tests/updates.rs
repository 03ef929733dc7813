//! What a handler says while it runs: kept, bounded, sent again, conflated.

use pinmesh_protocol::limits::{STREAM_BYTES_MAX, UPDATE_OVERHEAD_BYTES};

use super::*;

/// A worker that runs a task.
fn running() -> (Bench, u32) {
    let mut bench = Bench::supervised();
    let index = bench.take(1).unwrap();
    assert_eq!(bench.start(index), Start::Run);
    bench.log.drain();
    (bench, index)
}

fn emit(bench: &mut Bench, number: u32) -> Vec<String> {
    bench.worker.emit(bench.now, number, 100, &mut bench.log);
    bench.log.drain()
}

fn latest(bench: &mut Bench, number: u32) -> Vec<String> {
    bench.worker.latest(bench.now, number, 100, &mut bench.log);
    bench.log.drain()
}

#[test]
fn stream_is_sent_again_in_order_until_it_is_acknowledged() {
    let (mut bench, index) = running();
    for number in 1..=3 {
        assert_eq!(emit(&mut bench, number), [alloc::format!("DONE {number}")]);
    }
    bench.worker.end(bench.now, index, 9, 10, &mut bench.log);
    bench.hear(FromBroker::Ack(1));
    let said = bench.reconnect(1);
    assert_eq!(said, ["READY 1/1", "DONE 2", "DONE 3", "DONE 9"]);
    bench.hear(FromBroker::Ack(3));
    assert_eq!(bench.worker.unacknowledged(), 0);
    assert_eq!(bench.log.forgotten, [(index, Some(9))]);
}

#[test]
fn what_is_emitted_without_a_session_goes_out_in_the_next() {
    let (mut bench, _) = running();
    bench.hear(FromBroker::NoSession);
    assert!(emit(&mut bench, 1).is_empty());
    assert_eq!(bench.reconnect(1), ["READY 1/1", "DONE 1"]);
}

#[test]
fn a_handler_waits_with_stream_past_its_window_but_never_with_the_first() {
    let (mut bench, _) = running();
    let each = 100 + UPDATE_OVERHEAD_BYTES;
    let most = STREAM_BYTES_MAX.min(1000) / each;
    assert!(bench.worker.admits_update(1 << 30), "one always may");
    for number in 1..=most {
        assert!(bench.worker.admits_update(100), "{number}");
        emit(&mut bench, number as u32);
    }
    assert!(!bench.worker.admits_update(100));
    bench.hear(FromBroker::Ack(1));
    assert!(bench.worker.admits_update(100));
}

#[test]
fn of_latest_the_newest_goes_out_when_it_may() {
    let (mut bench, index) = running();
    let sent: usize = (0..100).map(|number| latest(&mut bench, number).len()).sum();
    assert_eq!(sent, 8);
    bench.now = bench.now.after(10_000_000);
    assert_eq!(latest(&mut bench, 100), ["DONE 100"]);
    assert!(latest(&mut bench, 101).is_empty());
    bench.worker.end(bench.now, index, 9, 10, &mut bench.log);
    assert_eq!(bench.log.drain(), ["DONE 101", "DONE 9"], "the last one before the end");
    bench.hear(FromBroker::Ack(1));
    assert_eq!(bench.worker.unacknowledged(), 0, "only the end is counted");
}

#[test]
fn latest_that_waits_goes_before_what_is_emitted_after_it() {
    let (mut bench, _) = running();
    (0..9).for_each(|number| drop(latest(&mut bench, number)));
    assert_eq!(emit(&mut bench, 9), ["DONE 8", "DONE 9"]);
    bench.hear(FromBroker::NoSession);
    latest(&mut bench, 10);
    assert_eq!(bench.reconnect(1), ["READY 1/1", "DONE 9"], "without a session it is dropped");
}

#[test]
fn updates_do_not_count_as_tasks_beyond_the_window() {
    let mut bench = Bench::open(None, 1);
    let index = bench.take(1).unwrap();
    assert_eq!(bench.start(index), Start::Run);
    for number in 0..5_000 {
        bench.worker.emit(bench.now, number, 0, &mut bench.log);
    }
    assert_eq!(bench.take(2), None);
    assert!(bench.log.drain().iter().all(|said| !said.starts_with("REFUSED")));
}

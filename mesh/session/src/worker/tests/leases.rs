//! Leases of a supervised worker's host: no socket and no start outside them.

use super::*;

const NONE: Lease = Lease { until: Time(0), ..LEASE };
const HOST: Option<PeerId> = Some(PeerId([2; 16]));

impl Bench {
    fn lease(&mut self, lease: Lease) -> Vec<String> {
        self.event(Event::Lease(lease))
    }
}

#[test]
fn a_supervised_worker_opens_no_socket_before_its_host_has_a_lease() {
    let mut bench = Bench::new(HOST, 4);
    assert_eq!(bench.event(Event::Tick), [""; 0]);
    bench.lease(NONE);
    let (at, why) = bench.worker.next_wakeup().unwrap();
    assert_eq!((at, why), (bench.now.after(OPEN_LOOK_NS), WakeReason::Open));
    assert_eq!(bench.tick_after(OPEN_LOOK_NS), [""; 0]);
    assert_eq!(bench.lease(LEASE), [""; 0]);
    assert_eq!(bench.tick_after(OPEN_LOOK_NS), ["open", "HELLO"]);
    bench.welcome(1);
    assert!(bench.worker.is_open());
    // It lapses: its supervisor ends it with a new term.
    let (lapsed, renewed) = (Lease { term: 1, ..NONE }, Lease { term: 1, ..LEASE });
    bench.log.drain();
    assert_eq!(bench.lease(lapsed), ["close"]);
    assert_eq!(bench.tick_after(SECOND), [""; 0]);
    assert_eq!(bench.lease(renewed), [""; 0]);
    assert_eq!(bench.tick_after(OPEN_LOOK_NS), ["open", "HELLO"]);
}

#[test]
fn a_greeting_that_outlives_the_lease_is_closed_and_so_is_a_dead_session() {
    let mut bench = Bench::new(HOST, 4);
    bench.lease(LEASE);
    assert_eq!(bench.event(Event::Tick), ["open", "HELLO"]);
    assert_eq!(bench.lease(NONE), ["close"]);
    bench.lease(LEASE);
    assert_eq!(bench.tick_after(OPEN_LOOK_NS), ["open", "HELLO"]);
    // The worker has not looked at the page when it gives up the silent broker.
    bench.worker.lease = Some(NONE);
    assert_eq!(bench.tick_after(WELCOME_WAIT_NS), ["close"]);
    assert_eq!(bench.tick_after(OPEN_LOOK_NS), [""; 0]);
}

#[test]
fn a_task_waits_a_second_for_the_lease_of_its_broker_s_life_and_goes_back() {
    let mut bench = Bench::supervised();
    // The supervisor is still with an earlier life of the broker.
    bench.lease(Lease { epoch: Epoch(9), ..LEASE });
    let index = bench.take(1).unwrap();
    assert_eq!(bench.start(index), Start::NotYet);
    assert!(bench.worker.retry_start_ns().is_some());
    bench.now = bench.now.after(LEASE_WAIT_NS);
    assert_eq!(bench.start(index), Start::GivenBack);
    assert_eq!(bench.log.drain(), ["RETURN 1"]);
}

#[test]
fn a_task_goes_back_at_once_when_its_lease_has_run_out() {
    let mut bench = Bench::supervised();
    let index = bench.take(1).unwrap();
    bench.now = LEASE.until;
    assert_eq!(bench.start(index), Start::GivenBack);
    assert_eq!(bench.log.drain(), ["RETURN 1"]);
}

/// The worker was away while its lease lapsed and was renewed: it sees only the new one.
#[test]
fn after_a_lapsed_lease_what_waited_is_neither_run_nor_listed() {
    let mut bench = Bench::supervised();
    bench.run(1);
    let waiting = bench.take(2).unwrap();
    bench.log.drain();
    assert_eq!(bench.lease(Lease { term: 1, ..LEASE }), ["close"]);
    assert_eq!(bench.start(waiting), Start::GivenBack);
    assert_eq!(bench.tick_after(0), ["open", "HELLO"]);
    assert_eq!(bench.welcome(1), ["READY 1/1", "DONE 1"]);
    assert_eq!(bench.log.ready.last().unwrap().1, [(1, HeldState::Ended)]);
    let index = bench.take(3).unwrap();
    assert_eq!(bench.start(index), Start::Run);
}

#[test]
fn a_lease_that_lapses_between_two_sessions_takes_what_waited_with_it() {
    let mut bench = Bench::supervised();
    let waiting = bench.take(1).unwrap();
    bench.hear(FromBroker::NoSession);
    bench.log.drain();
    assert_eq!(bench.lease(Lease { term: 1, ..LEASE }), [""; 0]);
    assert_eq!(bench.start(waiting), Start::GivenBack);
    assert_eq!(bench.tick_after(10 * SECOND), ["open", "HELLO"]);
    assert_eq!(bench.welcome(1), ["READY 1/1"]);
    assert_eq!(bench.log.ready.last().unwrap().1, []);
}

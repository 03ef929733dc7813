//! FETCH: the outcome of a key, from the broker that has it.

use alloc::vec::Vec;

use pinmesh_protocol::command::Fetched;
use pinmesh_protocol::status::FetchState;

use super::*;
use crate::client::FetchOf;

/// Its broker, of two, is the first.
const KEY: u64 = 1;
const A: LinkId = LinkId(0);
const B: LinkId = LinkId(1);

fn fetch(body: u32) -> NewRequest<u32> {
    let fetch = FetchOf { key: b"key".as_slice().into(), waits: true };
    let service = ServiceId(u32::MAX);
    NewRequest { key: Some(KEY), fetch: Some(fetch), bytes: 0, service, ..request(body) }
}

/// FETCHes sent: the request, its submission, and to whom.
fn fetches(bench: &mut Bench) -> Vec<(u64, u32, LinkId)> {
    let sent = bench.effects().into_iter().filter_map(|effect| match effect {
        Effect::Fetch(to, id, submission) => Some((id.0, submission.0, to)),
        _ => None,
    });
    sent.collect()
}

fn fetched(submission: u32, state: FetchState) -> FromBroker<'static> {
    let (request_id, submission) = (RequestId(1), Submission(submission));
    FromBroker::Fetched(Fetched { request_id, submission, state })
}

#[test]
fn a_fetch_goes_to_the_broker_of_its_key_and_ends_with_its_result() {
    let mut bench = Bench::open(2);
    bench.event(ClientEvent::Submit(fetch(0)));
    assert_eq!(fetches(&mut bench), [(1, 1, A)]);
    bench.receive(A, FromBroker::Result(result(1, 1, Status::Ok)));
    assert_eq!(bench.ends(), [(1, End::Result(Status::Ok, Submission(1)))]);
}

#[test]
fn one_that_is_unknown_is_asked_of_the_others_and_then_is_over() {
    let mut bench = Bench::open(2);
    bench.event(ClientEvent::Submit(fetch(0)));
    bench.effects();
    bench.receive(A, fetched(1, FetchState::Unknown));
    assert_eq!(fetches(&mut bench), [(1, 2, B)]);
    // An answer to the first asking says nothing of the second.
    bench.receive(A, fetched(1, FetchState::Pending));
    assert_eq!(bench.client.unresolved(), 1);
    bench.receive(B, fetched(2, FetchState::Unknown));
    assert_eq!(bench.ends(), [(1, End::Local(LocalEnd::UnknownKey))]);
}

#[test]
fn pending_is_an_end_of_the_fetch() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(fetch(0)));
    bench.receive(A, fetched(1, FetchState::Pending));
    assert_eq!(bench.ends(), [(1, End::Local(LocalEnd::NotEnded))]);
}

#[test]
fn a_fetch_is_sent_again_in_the_next_session() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(fetch(0)));
    bench.effects();
    bench.event(ClientEvent::SocketLost(A));
    bench.sleep(SECOND);
    bench.greet(A, 1);
    assert_eq!(fetches(&mut bench), [(1, 1, A)]);
}

#[test]
fn an_idempotency_key_waits_while_its_broker_is_busy() {
    let mut bench = Bench::open(2);
    let keyed = NewRequest { key: Some(KEY), keeps_to_key: true, ..request(0) };
    bench.event(ClientEvent::Submit(keyed));
    bench.receive(A, FromBroker::Result(result(1, 1, Status::Busy)));
    assert_eq!(bench.submits(), [(1, 1, A)]);
    bench.sleep(SECOND);
    assert_eq!(bench.submits(), [(1, 2, A)]);
}

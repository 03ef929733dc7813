//! Requests: windows, results, BUSY, limits.

use pinmesh_protocol::command::{ClientProgress, Payload};
use pinmesh_protocol::id::{Dispatch, TaskId};
use pinmesh_protocol::status::ProgressKind;

use super::*;

#[test]
fn a_service_alias_is_set_in_the_batch_of_its_first_use() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(request(5)));
    bench.event(ClientEvent::Submit(request(6)));
    let effects = bench.effects();
    assert_eq!(effects[0], Effect::Service(LINK, 0, "echo".into()));
    assert!(matches!(effects[1], Effect::Submit { id: RequestId(1), body: 5, .. }));
    assert!(matches!(effects[2], Effect::Submit { id: RequestId(2), body: 6, .. }));
    assert_eq!((effects.len(), bench.outbox.names), (3, 0));
}

#[test]
fn a_result_resolves_its_request_once_and_is_acknowledged_once_a_batch() {
    let mut bench = Bench::open(1);
    (0..2).for_each(|body| bench.event(ClientEvent::Submit(request(body))));
    bench.effects();
    for id in [2, 1, 2] {
        bench.event(ClientEvent::Received(LINK, FromBroker::Result(result(id, 1, Status::Ok))));
    }
    bench.event(ClientEvent::BatchEnd(LINK));
    let end = || End::Result(Status::Ok, Submission(1));
    let want = [
        Effect::Resolve(RequestId(2), 1, end()),
        Effect::Resolve(RequestId(1), 0, end()),
        Effect::Ack(LINK, 3),
    ];
    assert_eq!(bench.effects(), want);
    assert_eq!(bench.client.counters().stale, 1);
    bench.event(ClientEvent::BatchEnd(LINK));
    assert_eq!(bench.effects(), []);
}

#[test]
fn the_window_bounds_what_is_handed_in_and_the_queue_what_is_kept() {
    let mut bench = Bench::open(1);
    (0..12).for_each(|body| bench.event(ClientEvent::Submit(request(body))));
    assert_eq!(bench.outbox.effects.len(), 1 + 4 + 2);
    let full = End::Local(LocalEnd::Full);
    assert_eq!(bench.ends(), [(11, full.clone()), (12, full)]);
    bench.receive(LINK, FromBroker::Result(result(1, 1, Status::Ok)));
    assert_eq!(bench.submits(), [(5, 1, LINK)]);
    bench.receive(LINK, FromBroker::Window(Window { tasks: 6, bytes: 1 << 30 }));
    assert_eq!(bench.submits(), [(6, 1, LINK), (7, 1, LINK)]);
}

#[test]
fn a_payload_that_only_an_absent_broker_might_take_does_not_hold_the_others_up() {
    let mut bench = Bench::new(2);
    bench.event(ClientEvent::Start);
    bench.greet(LINK, 1);
    let long = NewRequest { bytes: 1 << 27, ..request(0) };
    bench.event(ClientEvent::Submit(long));
    bench.event(ClientEvent::Submit(request(1)));
    assert_eq!(bench.submits(), [(2, 1, LINK)]);
    bench.sleep(3 * SECOND);
    bench.receive(LINK, FromBroker::Heartbeat(Heartbeat { sequence: 3, silence_ns: None }));
    bench.greet(LinkId(1), 1);
    bench.sleep(SECOND);
    let (bytes, bytes_max) = (1 << 27, 1 << 26);
    assert_eq!(bench.ends(), [(1, End::Local(LocalEnd::PayloadTooLarge { bytes, bytes_max }))]);
}

#[test]
fn busy_is_waited_out_and_handed_in_under_a_higher_submission() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(request(0)));
    bench.receive(LINK, FromBroker::Result(result(1, 1, Status::Busy)));
    assert_eq!(bench.ends(), []);
    // The same service waits with it.
    bench.event(ClientEvent::Submit(request(1)));
    bench.sleep(SECOND / 2);
    assert_eq!(bench.submits(), []);
    bench.sleep(SECOND);
    assert_eq!(bench.submits(), [(1, 2, LINK), (2, 1, LINK)]);
    // A late BUSY of the first submission changes nothing.
    bench.receive(LINK, FromBroker::Result(result(1, 1, Status::Busy)));
    assert_eq!(bench.ends(), []);
    bench.receive(LINK, FromBroker::Result(result(1, 2, Status::Ok)));
    assert_eq!(bench.ends(), [(1, End::Result(Status::Ok, Submission(2)))]);
}

#[test]
fn busy_is_told_to_who_asked_for_it_and_where_the_deadline_is_too_near() {
    let mut bench = Bench::open(1);
    let asked = NewRequest { shows_busy: true, ..request(0) };
    let near = NewRequest { deadline: bench.now.after(SECOND / 2), ..request(1) };
    bench.event(ClientEvent::Submit(asked));
    bench.event(ClientEvent::Submit(near));
    for id in [1, 2] {
        bench.receive(LINK, FromBroker::Result(result(id, 1, Status::Busy)));
    }
    let busy = End::Result(Status::Busy, Submission(1));
    assert_eq!(bench.ends(), [(1, busy.clone()), (2, busy)]);
}

#[test]
fn while_a_broker_is_busy_those_who_asked_for_it_are_told_so_at_once() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(request(0)));
    bench.receive(LINK, FromBroker::Result(result(1, 1, Status::Busy)));
    bench.sleep(SECOND / 4);
    bench.effects();
    bench.event(ClientEvent::Submit(NewRequest { shows_busy: true, ..request(1) }));
    let retry_after_ns = 3 * SECOND / 4;
    let end = End::Local(LocalEnd::Busy { retry_after_ns });
    assert_eq!(bench.effects(), [Effect::Resolve(RequestId(2), 1, end)]);
}

#[test]
fn beside_a_busy_broker_one_that_is_merely_full_is_waited_for() {
    let mut bench = Bench::open(2);
    (0..8).for_each(|body| bench.event(ClientEvent::Submit(request(body))));
    bench.receive(LINK, FromBroker::Result(result(1, 1, Status::Busy)));
    bench.event(ClientEvent::Submit(NewRequest { shows_busy: true, ..request(8) }));
    assert_eq!(bench.ends(), []);
    bench.sleep(SECOND);
    bench.receive(LinkId(1), FromBroker::Result(result(2, 1, Status::Ok)));
    assert_eq!(bench.submits().last(), Some(&(9, 1, LinkId(1))));
}

#[test]
fn with_two_brokers_the_one_with_fewest_outstanding_is_chosen_and_a_busy_one_skipped() {
    let mut bench = Bench::open(2);
    (0..4).for_each(|body| bench.event(ClientEvent::Submit(request(body))));
    let (a, b) = (LinkId(0), LinkId(1));
    assert_eq!(bench.submits(), [(1, 1, a), (2, 1, b), (3, 1, a), (4, 1, b)]);
    bench.receive(a, FromBroker::Result(result(1, 1, Status::Busy)));
    assert_eq!(bench.submits(), [(1, 2, b)]);
}

#[test]
fn a_payload_that_the_broker_would_refuse_ends_here() {
    let mut bench = Bench::open(1);
    let (bytes, bytes_max) = ((1 << 26) + 1, 1 << 26);
    bench.event(ClientEvent::Submit(NewRequest { bytes, ..request(0) }));
    let end = End::Local(LocalEnd::PayloadTooLarge { bytes, bytes_max });
    assert_eq!(bench.ends(), [(1, end)]);
    let options = Some(vec![0; 4096].into());
    bench.event(ClientEvent::Submit(NewRequest { options, ..request(0) }));
    assert!(matches!(bench.ends()[..], [(2, End::Local(LocalEnd::HeaderTooLarge { .. }))]));
}

#[test]
fn a_cancel_is_sent_once_and_once_more_if_it_becomes_hard() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(request(0)));
    bench.effects();
    let hard = Effect::CancelHard(LINK, RequestId(1), Submission(1));
    for (how, expected) in [
        (Cancel::Soft, vec![Effect::Cancel(LINK, RequestId(1), Submission(1))]),
        (Cancel::Soft, vec![]),
        (Cancel::Hard, vec![hard.clone()]),
        (Cancel::Hard, vec![]),
        (Cancel::Soft, vec![]),
    ] {
        bench.event(ClientEvent::Cancel(RequestId(1), how));
        assert_eq!(bench.effects(), expected);
    }
    bench.event(ClientEvent::SocketLost(LINK));
    bench.sleep(SECOND);
    bench.greet(LINK, 1);
    assert_eq!(bench.effects().pop(), Some(hard), "and again in the next session");
}

fn update(dispatch: u32, sequence: u64, kind: ProgressKind) -> FromBroker<'static> {
    FromBroker::Progress(ClientProgress {
        request_id: RequestId(1),
        submission: Submission(1),
        task: TaskId(9),
        dispatch: Dispatch(dispatch),
        sequence,
        kind,
        content_type: ContentType::RAW,
        payload: Payload::Inline(b""),
    })
}

#[test]
fn an_update_is_told_once_and_none_of_an_attempt_before() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(request(0)));
    let told = |bench: &mut Bench, dispatch, sequence| {
        let before = bench.client.counters().updates;
        bench.receive(LINK, update(dispatch, sequence, ProgressKind::Latest));
        bench.client.counters().updates > before
    };
    assert!(told(&mut bench, 1, 1) && told(&mut bench, 1, 3));
    assert!(!told(&mut bench, 1, 3) && !told(&mut bench, 1, 2));
    assert!(told(&mut bench, 2, 1));
    assert!(!told(&mut bench, 1, 9), "that attempt is over");
    assert!(told(&mut bench, 2, 2));
}

#[test]
fn while_it_is_held_a_client_acknowledges_nothing() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(request(0)));
    bench.effects();
    bench.event(ClientEvent::Hold(true));
    bench.receive(LINK, update(1, 1, ProgressKind::Stream));
    bench.receive(LINK, update(1, 2, ProgressKind::Stream));
    bench.event(ClientEvent::BatchEnd(LINK));
    assert_eq!(bench.effects(), []);
    bench.event(ClientEvent::Hold(false));
    assert_eq!(bench.effects(), [Effect::Ack(LINK, 2)]);
    bench.event(ClientEvent::Hold(false));
    assert_eq!(bench.effects(), [], "nothing is new");
}

#[test]
fn updates_of_another_task_for_the_same_request_begin_anew() {
    let mut bench = Bench::open(1);
    bench.event(ClientEvent::Submit(request(0)));
    bench.effects();
    let of_task = |task| match update(1, 1, ProgressKind::Latest) {
        FromBroker::Progress(progress) => {
            FromBroker::Progress(ClientProgress { task: TaskId(task), ..progress })
        }
        other => other,
    };
    for (task, told) in [(9, 1), (9, 1), (10, 2)] {
        bench.receive(LINK, of_task(task));
        assert_eq!(bench.client.counters().updates, told, "task {task}");
    }
}

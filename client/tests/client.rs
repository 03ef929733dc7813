//! The client against a broker in a thread, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use common::{Control, FakeBroker, GENEROUS};
use pinmesh_client::{Client, Error, Handle};

fn connect(broker: &FakeBroker) -> Client {
    Client::connect(&broker.endpoint).unwrap()
}

#[test]
fn a_call_gives_back_what_the_handler_returned() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let input = ("name".to_string(), vec![1_u64, 2, 3], None::<bool>);
    let output: (String, Vec<u64>, Option<bool>) = client.call("echo", &input).unwrap();
    assert_eq!(output, input);
    assert_eq!(&*client.call_raw("echo", b"raw \xff").unwrap(), b"raw \xff");
    let reply = client.task("echo").call_reply::<_, u8>(&7_u8).unwrap();
    assert_eq!((reply.value, reply.tries), (7, 0));
    assert_eq!(reply.stages.unwrap().service_ns, 1);
    assert!(reply.response > Duration::ZERO);
}

#[test]
fn thousands_of_tasks_each_get_their_own_result() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let submit = |n: u64| client.submit::<_, u64>("echo", &n).unwrap();
    let handles: Vec<Handle<u64>> = (0..5000).map(submit).collect();
    for (n, handle) in (0..).zip(handles) {
        assert_eq!(handle.wait().unwrap(), n);
    }
    assert_eq!(client.unresolved(), 0);
    broker.wait_seen("every result acknowledged", |seen| seen.acked == 5000);
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn clients_and_handles_go_between_threads() {
    fn goes<T: Send + Sync>() {}
    fn moves<T: Send>() {}
    goes::<Client>();
    goes::<Error>();
    goes::<pinmesh_client::Completions>();
    moves::<Handle<std::rc::Rc<u8>>>();
}

#[test]
fn a_handle_is_a_future() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let output = block_on(async {
        let first: u64 = client.submit("echo", &1_u64)?.await?;
        let second: u64 = client.task("echo").call_async(&2_u64)?.await?;
        Ok::<_, Error>(first + second)
    });
    assert_eq!(output.unwrap(), 3);
}

#[test]
fn errors_of_the_mesh_name_the_service_and_what_was_said() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let error = client.call::<_, u8>("fail", &1).unwrap_err();
    assert_eq!(error.to_string(), "service `fail` failed: boom");
    let error = client.call::<_, u8>("nobody", &1).unwrap_err();
    assert!(matches!(&error, Error::NoService { service } if &**service == "nobody"), "{error}");
    let error = client.call::<_, String>("echo", &1_u8).unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error}");
    let error = client.task("echo").priority(11).call::<_, u8>(&1).unwrap_err();
    assert!(error.to_string().starts_with("priority = 11: must be from 1 to 10"), "{error}");
    let error = client.call::<_, u8>("", &1).unwrap_err();
    assert!(matches!(error, Error::Invalid { what: "service", .. }), "{error}");
}

#[test]
fn a_wait_that_times_out_leaves_the_handle_good() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let mut handle = client.submit::<_, u8>("hold", &1_u8).unwrap();
    let error = handle.wait_timeout(Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, Error::WaitTimedOut { .. }));
    broker.control(Control::Release);
    assert_eq!(handle.wait_timeout(GENEROUS).unwrap(), 1);
    assert!(matches!(handle.wait_timeout(GENEROUS), Err(Error::Taken)));
}

#[test]
fn a_call_that_times_out_or_is_dropped_is_cancelled_and_a_dropped_submit_is_not() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let submitted = client.submit::<_, u8>("hold", &1_u8).unwrap();
    drop(submitted);
    let error = client.task("hold").timeout(Duration::from_millis(1)).call::<_, u8>(&1_u8);
    assert!(matches!(error, Err(Error::WaitTimedOut { .. })));
    drop(client.task("hold").call_async::<_, u8>(&1_u8).unwrap());
    broker.wait_seen("two cancels", |seen| seen.cancels == [2, 3]);
    let handle = client.submit::<_, u8>("hold", &1_u8).unwrap();
    assert_eq!(handle.request_id(), 4);
    handle.cancel();
    assert!(matches!(handle.wait(), Err(Error::Cancelled { .. })));
}

#[test]
fn a_broker_that_restarts_gets_everything_again_under_a_higher_submission() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let handles: Vec<_> =
        (0..100_u64).map(|n| client.submit::<_, u64>("hold", &n).unwrap()).collect();
    let once = client.task("hold").at_most_once().submit::<_, u8>(&1_u8).unwrap();
    broker.wait_seen("every submit", |seen| seen.submits.len() == 101);
    broker.control(Control::Restart);
    broker.control(Control::Release);
    for (n, handle) in (0..).zip(handles) {
        assert_eq!(handle.wait().unwrap(), n);
    }
    assert!(matches!(once.wait(), Err(Error::Lost { .. })));
    let seen = broker.seen();
    let again: Vec<_> = seen.submits[101..].iter().map(|&(_, again, life)| (again, life)).collect();
    assert_eq!(again, [(2, 2); 100]);
}

#[test]
fn a_session_that_is_forgotten_gets_everything_again_as_it_was() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let handle = client.task("hold").at_most_once().submit::<_, u64>(&5_u64).unwrap();
    broker.wait_seen("the submit", |seen| seen.submits.len() == 1);
    broker.control(Control::ForgetSessions);
    broker.wait_seen("the submit again", |seen| seen.submits.len() == 2);
    broker.control(Control::Release);
    assert_eq!(handle.wait().unwrap(), 5);
    assert_eq!(broker.seen().submits, [(1, 1, 1), (1, 1, 1)]);
}

#[test]
fn busy_is_waited_out_unless_it_is_asked_for() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let error = client.task("busy").show_busy().call::<_, u8>(&1_u8).unwrap_err();
    let want = Some(Duration::from_millis(20));
    assert!(matches!(error, Error::Busy { retry_after, .. } if retry_after == want), "{error}");
    assert_eq!(client.call::<_, u8>("busy", &1_u8).unwrap(), 1);
    assert_eq!(broker.seen().submits.last(), Some(&(2, 2, 1)));
}

#[test]
fn a_full_window_is_told_or_waited_for() {
    let broker = FakeBroker::start();
    let client = Client::builder().broker(&broker.endpoint).window(2).connect().unwrap();
    let first = client.submit::<_, u8>("hold", &1_u8).unwrap();
    let second = client.submit::<_, u8>("hold", &2_u8).unwrap();
    let error = client.try_submit::<_, u8>("hold", &3_u8).unwrap_err();
    assert!(matches!(error, Error::Full { tasks: 2, .. }), "{error}");
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || client.submit::<_, u8>("echo", &3_u8).unwrap().wait().unwrap()
    });
    first.cancel();
    assert_eq!(waiting.join().unwrap(), 3);
    broker.control(Control::Release);
    assert_eq!(second.wait().unwrap(), 2);
    drop(first);
    let client = Client::builder().broker(&broker.endpoint).window(1).connect().unwrap();
    for n in 0..200_u64 {
        // Who has seen an end finds its room.
        assert_eq!(client.try_submit::<_, u64>("echo", &n).unwrap().wait().unwrap(), n);
    }
}

#[test]
fn map_pulls_inputs_as_its_window_has_room_and_loses_none() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let pulled = Cell::new(0_usize);
    let inputs = (0..1000_u64).inspect(|_| pulled.set(pulled.get() + 1));
    let mut seen = vec![false; 1000];
    for (done, (index, output)) in client.map::<_, _, u64>("echo", inputs, 10).enumerate() {
        assert_eq!(output.unwrap(), index as u64);
        assert!(pulled.get() <= done + 10, "{} pulled, {done} done", pulled.get());
        assert!(!std::mem::replace(&mut seen[index], true));
    }
    assert!(seen.into_iter().all(|seen| seen));
    drop(client.map::<_, _, u8>("hold", 0..5_u8, 3));
    let mut held = client.map::<_, _, u8>("fail", 0..5_u8, 3);
    assert!(matches!(held.next(), Some((_, Err(Error::Failed { .. })))));
    assert_eq!(held.count(), 4);
}

#[test]
fn a_map_of_a_task_has_its_options() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let urgent = client.task("echo").priority(9);
    let mut outputs: Vec<u8> =
        urgent.map::<_, _, u8>(0..20_u8, 5).map(|(_, output)| output.unwrap()).collect();
    outputs.sort_unstable();
    assert_eq!(outputs, Vec::from_iter(0..20));
    assert_eq!(broker.seen().priorities, [9; 20]);
    let mut refused = client.task("echo").priority(0).map::<_, _, u8>([1_u8, 2], 5);
    assert!(matches!(refused.next(), Some((0, Err(Error::Invalid { what: "priority", .. })))));
}

#[test]
fn long_payloads_travel_whole_and_too_long_ones_not_at_all() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    for bytes in [0, 1, 32 * 1024 - 1, 32 * 1024, 1 << 20, (1 << 20) + 1, 5 << 20] {
        let payload: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let output = client.call_raw("echo", &payload).unwrap();
        assert!(output == payload[..], "{bytes} bytes came back as {}", output.len());
    }
    let error = client.submit_raw("echo", vec![0; (64 << 20) + 1]).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn a_client_that_goes_tells_its_handles_and_hands_over_what_is_queued() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let handle = client.submit::<_, u8>("hold", &1_u8).unwrap();
    drop(client);
    assert!(matches!(handle.wait(), Err(Error::Closed)));
    broker.wait_seen("the submit", |seen| seen.submits.len() == 1);
    let client = connect(&broker);
    let other = client.clone();
    let handle = client.submit::<_, u8>("echo", &1_u8).unwrap();
    client.close(GENEROUS).unwrap();
    assert_eq!(handle.wait().unwrap(), 1);
    broker.wait_seen("a goodbye", |seen| seen.goodbyes == 1);
    assert!(matches!(other.call::<_, u8>("echo", &1_u8), Err(Error::Closed)));
    assert!(matches!(other.ping(GENEROUS), Err(Error::Closed)));
}

#[test]
fn a_broker_that_is_not_there_is_named_and_tasks_wait_for_it() {
    // A port that was free a moment ago.
    let endpoint = FakeBroker::start().endpoint.clone();
    let builder = Client::builder().broker(&endpoint).connect_timeout(Duration::from_millis(50));
    let error = builder.connect().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&endpoint), "{error}");
    assert!(matches!(Client::connect("http://x"), Err(Error::Transport(_))));
    let client = Client::builder().broker(&endpoint).start().unwrap();
    let handle = client.submit::<_, u8>("echo", &1_u8).unwrap();
    let mut late = client.task("echo").deadline(Duration::from_millis(50)).submit(&1_u8).unwrap();
    let error = late.wait_timeout(GENEROUS).map(|(): ()| ()).unwrap_err();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    drop(client);
    assert!(matches!(handle.wait(), Err(Error::Closed)));
}

#[test]
fn a_client_greets_its_broker_once() {
    let broker = FakeBroker::start();
    for count in 1..=5 {
        let client = connect(&broker);
        client.ping(GENEROUS).unwrap();
        client.close(GENEROUS).unwrap();
        broker.wait_seen("a goodbye", |seen| seen.goodbyes == count);
        assert_eq!(broker.seen().hellos, count);
    }
}

#[test]
fn a_ping_tells_the_brokers_life() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let (round_trip, epoch) = client.ping(GENEROUS).unwrap();
    assert!(round_trip > Duration::ZERO);
    assert_eq!(epoch, 1);
}

#[test]
fn a_wait_for_an_end_can_be_interrupted_from_another_thread() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let queue = client.completions();
    client.task("hold").submit_raw_to(&queue, 7, Vec::new()).unwrap();
    let interrupter = queue.clone();
    std::thread::spawn(move || interrupter.interrupt());
    let start = std::time::Instant::now();
    assert!(queue.recv_timeout(GENEROUS).is_none());
    assert!(start.elapsed() < GENEROUS);
    // Nobody waits: the next wait ends at once, and only that one; an end goes first.
    queue.interrupt();
    assert!(queue.recv_timeout(GENEROUS).is_none());
    queue.interrupt();
    broker.control(Control::Release);
    assert_eq!(queue.recv().0, 7);
}

#[test]
fn a_queue_takes_the_ends_of_many_tasks() {
    let broker = FakeBroker::start();
    let client = connect(&broker);
    let queue = client.completions();
    let task = client.task("length");
    for token in 0..100_u64 {
        task.submit_raw_to(&queue, token, vec![0; token as usize]).unwrap();
    }
    let mut left: Vec<u64> = (0..100).collect();
    for _ in 0..100 {
        let (token, outcome) = queue.recv_timeout(GENEROUS).unwrap();
        assert_eq!(&*outcome.unwrap().value, token.to_string().as_bytes());
        left.retain(|&it| it != token);
    }
    assert!(left.is_empty());
}

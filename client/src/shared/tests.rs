use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::channel;

use pinmesh_protocol::id::{ContentType, Priority};

use super::*;
use crate::completion::Completions;

/// How long a test waits for something that must happen.
const GENEROUS: Duration = Duration::from_secs(30);

fn shared(tasks: u32) -> Arc<Shared> {
    Arc::new(Shared::new(vec!["nowhere".into()], Bounds { tasks, bytes: 1 << 20 }, None))
}

fn request(shared: &Shared, service: ServiceId) -> NewRequest<Body> {
    let ticket = Ticket::to_queue(Completions::default(), 0);
    let (input, started_at) = (Input::new(Vec::new()).unwrap(), shared.now());
    NewRequest {
        body: Body {
            input,
            bytes: 0,
            service,
            started_at,
            ticket,
            listener: Listener::None,
            accepted: None,
        },
        bytes: 0,
        service,
        priority: Priority::default(),
        deadline: Time::NEVER,
        start_at: None,
        content_type: ContentType::RAW,
        options: None,
        is_at_most_once: false,
        shows_busy: false,
        key: None,
        keeps_to_key: false,
        fetch: None,
    }
}

#[test]
fn a_new_service_and_a_task_that_finds_no_room_do_not_wait_for_each_other() {
    let shared = shared(1);
    let service = shared.service("first").unwrap();
    shared.submit(request(&shared, service), None).unwrap();
    let (done, is_done) = channel();
    for is_first in [true, false] {
        let (shared, done) = (Arc::clone(&shared), done.clone());
        std::thread::spawn(move || {
            for number in 1..SERVICE_NAMES_MAX {
                if is_first {
                    shared.service(&number.to_string()).unwrap();
                } else {
                    let now = Some(Some(Instant::now()));
                    let full = shared.submit(request(&shared, service), now);
                    assert!(matches!(full, Err(Error::Expired { .. })));
                }
            }
            done.send(()).unwrap();
        });
    }
    for _ in 0..2 {
        is_done.recv_timeout(GENEROUS).expect("the two threads wait for each other");
    }
}

#[test]
fn who_waits_for_a_session_is_told_that_the_client_is_closed() {
    let all: Vec<_> = (0..5_000).map(|_| shared(1)).collect();
    let (waiting, met) = (all.clone(), Arc::new(AtomicUsize::new(0)));
    let meet = move |number: usize| {
        met.fetch_add(1, SeqCst);
        while met.load(SeqCst) < 2 * (number + 1) {
            std::thread::yield_now();
        }
    };
    let (meet_there, (done, is_done)) = (meet.clone(), channel());
    std::thread::spawn(move || {
        for (number, shared) in waiting.iter().enumerate() {
            meet_there(number);
            done.send(shared.wait_open(Duration::MAX)).unwrap();
        }
    });
    for (number, shared) in all.iter().enumerate() {
        meet(number);
        // Sooner and later, so that it falls into every moment of the wait.
        (0..number % 50).for_each(|_| std::hint::spin_loop());
        drop(shared.close());
        let told = is_done.recv_timeout(GENEROUS).expect("the wait ends with the client");
        assert!(matches!(told, Err(Error::Closed)));
    }
}

/// Tells the two clocks apart on a host that has been suspended, or in a time namespace.
#[test]
fn time_goes_on_while_the_host_is_suspended() {
    let since_boot = || Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap().as_nanos();
    let before = since_boot();
    let now = u128::from(shared(1).now().0);
    assert!((before..=since_boot()).contains(&now));
}

//! Which task, which worker.

use pinmesh_core::{Conn, Event};

use crate::support::{Ask, Greeting, SECOND, Sim, TaskSent, results, tasks};

fn requests(tasks: &[TaskSent]) -> Vec<u64> {
    tasks.iter().map(|task| task.head.request_id.0).collect()
}

fn narrow(window_tasks: u32) -> Greeting {
    Greeting { window_tasks, ..Greeting::default() }
}

#[test]
fn the_more_urgent_task_goes_first_whenever_it_came() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    for (request, priority) in [(1, 1), (2, 5), (3, 10), (4, 5), (5, 9)] {
        sim.ask(client, Ask { request, priority, ..Ask::default() });
    }
    let sent = tasks(&sim.greet(2, 2, Greeting::default()));
    assert_eq!(requests(&sent), [3, 5, 2, 4, 1]);
}

#[test]
fn tasks_of_one_priority_go_in_the_order_in_which_they_came() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let other = sim.client(2);
    for request in 0..20 {
        sim.submit(if request % 2 == 0 { client } else { other }, request);
    }
    let sent = tasks(&sim.greet(3, 3, Greeting::default()));
    assert_eq!(requests(&sent), (0..20).collect::<Vec<_>>());
}

#[test]
fn tasks_that_come_back_stand_where_they_stood_by_age() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, narrow(2));
    sim.greet(3, 3, narrow(2));
    let sent: Vec<TaskSent> =
        (1..=4).flat_map(|request| tasks(&sim.submit(client, request))).collect();
    assert_eq!(sent.len(), 4);
    sim.submit(client, 5);
    // The older ones come back first, each worker's in the order in which it got them.
    for worker in [2, 3] {
        for task in sent.iter().filter(|task| task.to == Conn(worker)) {
            sim.give_back(task);
        }
    }
    let again = tasks(&sim.greet(9, 9, Greeting::default()));
    assert_eq!(requests(&again), [1, 2, 3, 4, 5]);
}

#[test]
fn a_task_goes_to_the_worker_with_the_fewest_in_flight() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let workers = [sim.worker(2, &["work"]), sim.worker(3, &["work"]), sim.worker(4, &["work"])];
    let mut sent: Vec<TaskSent> = Vec::new();
    for request in 0..6 {
        sent.extend(tasks(&sim.submit(client, request)));
    }
    for worker in workers {
        assert_eq!(sent.iter().filter(|task| task.to == worker).count(), 2);
    }
    let of_third: Vec<_> = sent.iter().filter(|task| task.to == workers[2]).collect();
    sim.done(of_third[0]);
    assert_eq!(tasks(&sim.submit(client, 9))[0].to, workers[2]);
}

#[test]
fn among_idle_workers_the_one_that_was_busy_last_is_chosen() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.worker(2, &["work"]);
    sim.worker(3, &["work"]);
    let first = tasks(&sim.submit(client, 1))[0];
    let second = tasks(&sim.submit(client, 2))[0];
    assert_ne!(first.to, second.to);
    sim.done(&second);
    sim.done(&first);
    assert_eq!(tasks(&sim.submit(client, 3))[0].to, first.to);
}

#[test]
fn a_worker_never_holds_more_tasks_than_its_window() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, narrow(2));
    let mut sent = Vec::new();
    for request in 0..5 {
        sent.extend(tasks(&sim.submit(client, request)));
    }
    assert_eq!(requests(&sent), [0, 1]);
    assert_eq!(requests(&tasks(&sim.done(&sent[0]))), [2]);
}

#[test]
fn the_brokers_cap_narrows_what_a_worker_offers() {
    let config = pinmesh_core::CoreConfig { worker_window_tasks: 3, ..Default::default() };
    let mut sim = Sim::with(config);
    let client = sim.client(1);
    sim.greet(2, 2, narrow(100));
    let sent: usize = (0..9).map(|request| tasks(&sim.submit(client, request)).len()).sum();
    assert_eq!(sent, 3);
}

#[test]
fn a_worker_never_holds_more_bytes_than_its_window() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, Greeting { window_bytes: 100, ..Greeting::default() });
    let mut sent = Vec::new();
    for request in 0..4 {
        sent.extend(tasks(&sim.ask(client, Ask { request, bytes: 40, ..Ask::default() })));
    }
    assert_eq!(requests(&sent), [0, 1]);
    assert_eq!(requests(&tasks(&sim.done(&sent[0]))), [2]);
}

#[test]
fn an_idle_worker_takes_one_task_whatever_its_size() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, Greeting { window_bytes: 100, ..Greeting::default() });
    let big = tasks(&sim.ask(client, Ask { request: 1, bytes: 5_000, ..Ask::default() }));
    assert_eq!(requests(&big), [1]);
    assert!(tasks(&sim.ask(client, Ask { request: 2, bytes: 1, ..Ask::default() })).is_empty());
    assert_eq!(requests(&tasks(&sim.done(&big[0]))), [2]);
}

#[test]
fn a_task_too_large_for_one_workers_rest_goes_to_another() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let small = Greeting { window_bytes: 100, ..Greeting::default() };
    sim.greet(2, 2, small.clone());
    sim.ask(client, Ask { request: 1, bytes: 60, ..Ask::default() });
    sim.greet(3, 3, Greeting { window_bytes: 1_000, ..small });
    sim.ask(client, Ask { request: 2, bytes: 60, ..Ask::default() });
    let sent = tasks(&sim.ask(client, Ask { request: 3, bytes: 60, ..Ask::default() }));
    assert_eq!(sent[0].to, Conn(3));
}

#[test]
fn a_window_that_grows_is_filled_at_once_and_one_that_shrinks_binds_later_sends() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, narrow(1));
    let first = tasks(&sim.submit(client, 1))[0];
    sim.submit(client, 2);
    sim.submit(client, 3);
    let grown = tasks(&sim.window(Conn(2), 2, 1 << 20));
    assert_eq!(requests(&grown), [2]);
    sim.window(Conn(2), 0, 1 << 20);
    assert!(tasks(&sim.done(&first)).is_empty());
    assert!(tasks(&sim.done(&grown[0])).is_empty());
    assert_eq!(requests(&tasks(&sim.window(Conn(2), 1, 1 << 20))), [3]);
}

#[test]
fn groups_that_share_a_service_share_its_tasks_and_keep_to_their_own_others() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let left = sim.worker(2, &["shared", "left"]);
    let right = sim.worker(3, &["right", "shared"]);
    let ask = |request, service: &str| Ask { request, service: service.into(), ..Ask::default() };
    let mut sent = Vec::new();
    for (request, service) in [(1, "left"), (2, "right"), (3, "shared"), (4, "shared")] {
        sent.extend(tasks(&sim.ask(client, ask(request, service))));
    }
    assert_eq!((sent[0].to, sent[1].to), (left, right));
    assert_ne!(sent[2].to, sent[3].to, "the second shared task goes where fewer are");
    assert_eq!(sent[0].head.service_alias, 1, "the place of the service in READY");
    assert_eq!(sent[1].head.service_alias, 0);
}

#[test]
fn services_of_equal_urgency_take_turns_and_the_more_urgent_goes_first() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    for request in 0..4 {
        sim.ask(client, Ask { request, service: "one".into(), ..Ask::default() });
    }
    for request in 10..14 {
        sim.ask(client, Ask { request, service: "two".into(), ..Ask::default() });
    }
    sim.ask(client, Ask { request: 20, service: "two".into(), priority: 6, ..Ask::default() });
    let services = vec!["one", "two"];
    let sent = requests(&tasks(&sim.greet(2, 2, Greeting { services, ..Greeting::default() })));
    assert_eq!(sent[0], 20);
    let of_first = sent[1..].iter().map(|request| *request < 10).collect::<Vec<_>>();
    assert!(of_first.windows(2).all(|pair| pair[0] != pair[1]), "not in turns: {sent:?}");
}

#[test]
fn a_task_that_was_given_back_goes_before_those_that_came_after_it() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, narrow(1));
    let first = tasks(&sim.submit(client, 1))[0];
    sim.submit(client, 2);
    sim.give_back(&first);
    let effects = sim.pass(SECOND);
    assert_eq!(requests(&tasks(&effects)), [] as [u64; 0]);
    assert_eq!(requests(&tasks(&sim.settle())), [1]);
}

#[test]
fn a_worker_whose_batch_is_stuck_is_sent_nothing_until_it_is_out() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    sim.event(Event::Full(worker));
    assert!(tasks(&sim.submit(client, 1)).is_empty());
    assert_eq!(requests(&tasks(&sim.event(Event::Sendable(worker)))), [1]);
}

#[test]
fn a_big_task_that_leaves_lets_the_small_ones_behind_it_pass() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.greet(2, 2, Greeting { window_bytes: 100, ..Greeting::default() });
    let running = tasks(&sim.ask(client, Ask { request: 1, bytes: 50, ..Ask::default() }))[0];
    assert!(tasks(&sim.ask(client, Ask { request: 2, bytes: 90, ..Ask::default() })).is_empty());
    sim.ask(client, Ask { request: 3, bytes: 10, ..Ask::default() });
    sim.cancel(client, 2, 1);
    let sent = tasks(&sim.done(&running));
    assert_eq!(requests(&sent), [3]);
    assert_eq!(results(&sim.done(&sent[0])).len(), 1);
}

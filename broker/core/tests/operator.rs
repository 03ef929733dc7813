//! What an operator does and sees.

use pinmesh_core::{
    AdminCommand, AdminObjection, AdminReply, Conn, DrainTarget, Obstacle, Purge, Span,
    TaskStanding, Time, WorkerStanding,
};
use pinmesh_protocol::id::{Slot, TaskId};
use pinmesh_protocol::status::Status;

use crate::support::{Ask, Greeting, SECOND, Sent, Sim, peer, results, sent_to, tasks};

fn purge(visits: u32) -> Purge<'static> {
    Purge { service: "work", upto: None, from: 0, visits }
}

fn task_ids(sim: &Sim) -> Vec<TaskId> {
    sim.broker.tasks().map(|view| view.task).collect()
}

#[test]
fn a_purge_ends_what_waits_and_leaves_what_runs() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let worker = sim.worker(2, &["work"]);
    let running = tasks(&sim.submit(client, 0))[0];
    sim.window(worker, 1, 1 << 20);
    sim.submit(client, 1);
    sim.ask(client, Ask { request: 2, service: "other".into(), ..Ask::default() });
    sim.submit(client, 3);
    let (reply, effects) = sim.administer(AdminCommand::Purge(purge(100)));
    let ended = [(client, 1, Status::Cancelled), (client, 3, Status::Cancelled)];
    assert_eq!(results(&effects), ended);
    assert_eq!(reply, Ok(AdminReply::Purged { count: 2, upto: sim.now, next: None }));
    assert_eq!(results(&sim.done(&running)), [(client, 0, Status::Ok)]);
    assert_eq!(sim.broker.counts().pending, 1, "the other service's");
}

#[test]
fn a_purge_goes_page_by_page_and_spares_what_comes_in_meanwhile() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    for request in 0..10 {
        sim.submit(client, request);
    }
    let (mut page, mut ended, mut pages) = (purge(3), 0, 0);
    loop {
        let Ok(AdminReply::Purged { count, upto, next }) =
            sim.administer(AdminCommand::Purge(page)).0
        else {
            panic!("a page of a purge says how far it came")
        };
        ended += count;
        pages += 1;
        assert!(count <= 3);
        sim.now = sim.now.after(Span(1));
        sim.submit(client, 100 + pages);
        page.upto = Some(upto);
        match next {
            Some(next) => page.from = next,
            None => break,
        }
    }
    assert_eq!(ended, 10);
    assert_eq!(sim.broker.counts().pending, pages, "those that came later");
}

#[test]
fn a_purge_of_an_unknown_service_says_so() {
    let mut sim = Sim::new();
    let reply = sim.administer(AdminCommand::Purge(purge(1))).0;
    assert_eq!(reply, Err(AdminObjection::UnknownService));
}

#[test]
fn an_operator_cancels_what_waits_at_once_and_asks_what_runs_to_stop() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    let supervisor = sim.supervisor(2, 2, &[(0, 1)]);
    sim.submit(client, 0);
    let cancel = |task, is_hard| AdminCommand::Cancel { task, is_hard };
    let task = task_ids(&sim)[0];
    let (reply, effects) = sim.administer(cancel(task, false));
    assert_eq!(
        (reply, results(&effects)),
        (Ok(AdminReply::Cancelled), vec![(client, 0, Status::Cancelled)])
    );
    assert_eq!(sim.administer(cancel(task, false)).0, Err(AdminObjection::HasEnded));
    sim.ack(client, 1);
    assert_eq!(sim.administer(cancel(task, false)).0, Err(AdminObjection::UnknownTask));
    sim.supervised(3, 2, 0);
    sim.submit(client, 1);
    let task = task_ids(&sim)[0];
    for is_hard in [false, true] {
        let (reply, effects) = sim.administer(cancel(task, is_hard));
        assert_eq!(reply, Ok(AdminReply::Stopping));
        let [Sent::Cancel(sent)] = sent_to(&effects, supervisor)[..] else { panic!("{effects:?}") };
        assert_eq!((sent.is_hard, sent.attempt.task), (is_hard, task));
    }
}

#[test]
fn whoever_is_to_leave_is_told_drain() {
    let mut sim = Sim::new();
    let supervisor = sim.supervisor(2, 2, &[(0, 1)]);
    let worker = sim.supervised(3, 2, 0);
    let alone = sim.worker(4, &["work"]);
    for (target, conn) in [
        (DrainTarget::Peer(peer(2)), supervisor),
        (DrainTarget::Slot(peer(2), Slot(0)), worker),
        (DrainTarget::Peer(peer(4)), alone),
    ] {
        let (reply, effects) = sim.administer(AdminCommand::Drain(target));
        assert_eq!(reply, Ok(AdminReply::Draining));
        assert_eq!(sent_to(&effects, conn), [Sent::Other("Drain".into())]);
        assert_eq!(effects.len(), 1);
    }
    sim.client(5);
    for nobody in [DrainTarget::Peer(peer(5)), DrainTarget::Slot(peer(2), Slot(1))] {
        let reply = sim.administer(AdminCommand::Drain(nobody)).0;
        assert_eq!(reply, Err(AdminObjection::UnknownPeer));
    }
    sim.gone(alone);
    let reply = sim.administer(AdminCommand::Drain(DrainTarget::Peer(peer(4)))).0;
    assert_eq!(reply, Err(AdminObjection::NotConnected));
}

#[test]
fn services_are_shown_in_pages_in_the_order_of_their_names() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    for (request, service) in ["c", "a", "b"].into_iter().enumerate() {
        let (request, service) = (request as u64, service.into());
        sim.ask(client, Ask { request, service, priority: 9, ..Ask::default() });
    }
    sim.worker(2, &["b"]);
    sim.pass(SECOND);
    let names = |after, limit| -> Vec<String> {
        let page = sim.broker.services_page(after, limit);
        page.into_iter().map(|view| view.name).collect()
    };
    assert_eq!(names(None, 2), ["a", "b"]);
    assert_eq!(names(Some("b"), 2), ["c"]);
    let waiting = sim.broker.service("c").expect("it is known");
    assert_eq!((waiting.pending[8], waiting.workers, waiting.in_flight), (1, 0, 0));
    assert_eq!((waiting.oldest_wait, waiting.bytes), (Some(SECOND), 10));
    let served = sim.broker.service("b").expect("it is known");
    assert_eq!((served.pending, served.workers, served.in_flight), ([0; 10], 1, 1));
}

#[test]
fn an_explanation_says_what_a_task_waits_for() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.submit(client, 0);
    sim.submit(client, 1);
    let (first, second) = (task_ids(&sim)[0], task_ids(&sim)[1]);
    let explain = |sim: &Sim, task| sim.broker.explain(task).expect("it is held");
    assert_eq!(explain(&sim, first).ahead, Some(0));
    assert_eq!(explain(&sim, second).ahead, Some(1));
    assert_eq!(explain(&sim, second).obstacles, [Obstacle::NoWorker]);
    sim.administer(AdminCommand::Pause("work")).0.expect("a known service");
    let worker = sim.greet(2, 2, Greeting { window_tasks: 1, ..Greeting::default() });
    assert!(tasks(&worker).is_empty());
    assert_eq!(explain(&sim, second).obstacles, [Obstacle::Paused]);
    sim.administer(AdminCommand::Resume("work")).0.expect("a known service");
    let busy = Obstacle::NoFreeWorker(vec![(WorkerStanding::Busy, 1)]);
    assert_eq!(explain(&sim, second).obstacles, [busy]);
    let running = explain(&sim, first);
    assert_eq!(running.view.standing, TaskStanding::InFlight);
    assert_eq!((running.view.worker, running.obstacles.len()), (Some(peer(2)), 0));
    assert_eq!(sim.broker.explain(TaskId(u64::MAX)), None);
}

#[test]
fn workers_are_shown_with_their_host_and_what_keeps_them() {
    let mut sim = Sim::new();
    let client = sim.client(1);
    sim.supervisor(2, 2, &[(0, 1)]);
    sim.supervised(3, 2, 0);
    sim.submit(client, 0);
    let (page, next) = sim.broker.workers_page(0, 10);
    assert_eq!((page.len(), next), (1, None));
    let worker = &page[0];
    assert_eq!((worker.host, worker.slot, worker.in_flight), (Some(peer(2)), Slot(0), 1));
    assert_eq!(
        (worker.standing, &worker.services[..]),
        (WorkerStanding::Free, &["work".into()][..])
    );
    sim.window(Conn(3), 0, 0);
    assert_eq!(sim.broker.workers_page(0, 10).0[0].standing, WorkerStanding::Closed);
    let (hosts, _) = sim.broker.hosts_page(0, 10);
    assert!(hosts[0].has_lease && hosts[0].is_connected);
    let (clients, _) = sim.broker.clients_page(0, 10);
    assert_eq!((clients[0].peer_id, clients[0].tasks), (peer(1), 1));
    assert_eq!(sim.broker.now(), Time(sim.now.0));
}

//! What the machine should do, found the slow way.

use std::collections::BTreeMap;

use super::CAP;
use super::turns::{LEAST, Shares, Turns};

#[derive(Clone, Copy)]
pub(super) struct Waiting {
    pub(super) service: usize,
    pub(super) priority: u8,
    /// Of the client, and which it is.
    pub(super) name: &'static str,
    pub(super) client: usize,
    pub(super) request: u64,
}

/// An attempt: its task, its worker, and what whom was charged for it.
struct Sent {
    task: Waiting,
    worker: usize,
    charged: Option<(usize, u64)>,
}

pub(super) struct NaiveWorker {
    group: usize,
    pub(super) window: u32,
    in_flight: u32,
    pub(super) is_full: bool,
    /// When its in-flight count or credit changed last: the latest is on top among equals.
    changed: u64,
}

/// Workers with the same services, and what those have used of their time.
struct NaiveGroup {
    services: Vec<usize>,
    shares: Shares,
    /// By priority.
    turns: BTreeMap<u8, Turns<usize>>,
}

pub(super) struct Naive {
    is_strict: bool,
    pub(super) workers: Vec<NaiveWorker>,
    groups: Vec<NaiveGroup>,
    /// By service and priority: its clients.
    clients: BTreeMap<(usize, u8), Turns<&'static str>>,
    /// What a task of each service should cost.
    estimates: [u64; 3],
    is_paused: [bool; 3],
    /// The oldest first.
    pub(super) waiting: Vec<Waiting>,
    sent: Vec<Sent>,
    clock: u64,
    /// Request and worker, in the order of dispatch.
    pub(super) dispatched: Vec<(u64, usize)>,
}

impl Naive {
    pub(super) fn new(is_strict: bool) -> Self {
        Self {
            is_strict,
            workers: Vec::new(),
            groups: Vec::new(),
            clients: BTreeMap::new(),
            estimates: [0; 3],
            is_paused: [false; 3],
            waiting: Vec::new(),
            sent: Vec::new(),
            clock: 0,
            dispatched: Vec::new(),
        }
    }

    pub(super) fn ready(&mut self, services: Vec<usize>, window: u32) {
        let known = self.groups.iter().position(|group| group.services == services);
        let group = known.unwrap_or_else(|| {
            let turns = (1..=10).map(|priority| (priority, Turns::new())).collect();
            self.groups.push(NaiveGroup { services, shares: Shares::new(), turns });
            let group = self.groups.len() - 1;
            for service in self.groups[group].services.clone() {
                if self.is_open(service) {
                    self.begin(service, &[group]);
                }
            }
            group
        });
        let changed = self.tick();
        self.workers.push(NaiveWorker { group, window, in_flight: 0, is_full: false, changed });
        self.feed(group);
    }

    /// What waits for the service stands in line at these groups from now on.
    fn begin(&mut self, service: usize, groups: &[usize]) {
        for priority in 1..=10 {
            let mut its = self.waiting.iter();
            if its.any(|task| (task.service, task.priority) == (service, priority)) {
                groups.iter().for_each(|group| self.stand(service, priority, *group));
            }
        }
    }

    fn stand(&mut self, service: usize, priority: u8, group: usize) {
        let group = &mut self.groups[group];
        // Changes nothing where the class stands in line already.
        group.shares.enter(priority);
        group.turns.get_mut(&priority).expect("1 to 10").enter(service);
    }

    fn is_open(&self, service: usize) -> bool {
        let held = self.sent.iter().filter(|sent| sent.task.service == service).count();
        !self.is_paused[service] && (service != 2 || held < CAP as usize)
    }

    fn groups_of(&self, service: usize) -> Vec<usize> {
        let all = 0..self.groups.len();
        all.filter(|group| self.groups[*group].services.contains(&service)).collect()
    }

    pub(super) fn submit(&mut self, task: Waiting) {
        let is_alone = self.waiting.iter().all(|other| other.service != task.service);
        if is_alone
            && self.is_open(task.service)
            && let Some(worker) = self.best_for(task.service)
        {
            return self.send(task, worker, None);
        }
        self.line_up(task);
        self.serve(task.service);
    }

    /// A task waits from now on, by its age.
    fn line_up(&mut self, task: Waiting) {
        let (service, priority) = (task.service, task.priority);
        let same =
            self.waiting.iter().filter(|it| (it.service, it.priority) == (service, priority));
        let (mut is_first, mut is_first_of_client) = (true, true);
        for other in same {
            is_first = false;
            is_first_of_client &= other.name != task.name;
        }
        if is_first_of_client {
            self.clients.entry((service, priority)).or_insert_with(Turns::new).enter(task.name);
        }
        if is_first && self.is_open(service) {
            for group in self.groups_of(service) {
                self.stand(service, priority, group);
            }
        }
        let place = self.waiting.partition_point(|other| other.request < task.request);
        self.waiting.insert(place, task);
    }

    /// Tasks came to wait for this service.
    fn serve(&mut self, service: usize) {
        while self.waiting.iter().any(|task| task.service == service)
            && self.is_open(service)
            && let Some(worker) = self.best_for(service)
            && let Some(place) = self.next_of(self.workers[worker].group)
        {
            self.dispatch(place, worker);
        }
    }

    fn best_for(&self, service: usize) -> Option<usize> {
        let best = self.groups_of(service).into_iter().filter_map(|group| self.best_of(group));
        best.min_by_key(|worker| self.workers[*worker].in_flight)
    }

    pub(super) fn change(&mut self, worker: usize, change: impl FnOnce(&mut NaiveWorker)) {
        change(&mut self.workers[worker]);
        self.workers[worker].changed = self.tick();
        self.feed(self.workers[worker].group);
    }

    pub(super) fn pause(&mut self, service: usize, is_paused: bool) {
        self.keep_line(service, |naive| naive.is_paused[service] = is_paused);
        self.serve(service);
    }

    /// A service that opens stands in line anew.
    fn keep_line(&mut self, service: usize, change: impl FnOnce(&mut Self)) {
        let was_open = self.is_open(service);
        change(self);
        if !was_open && self.is_open(service) {
            let groups = self.groups_of(service);
            self.begin(service, &groups);
        }
    }

    fn feed(&mut self, group: usize) {
        while let Some(worker) = self.best_of(group)
            && let Some(place) = self.next_of(group)
        {
            self.dispatch(place, worker);
        }
    }

    /// Where the task waits whose turn it is: class, then service, then client, then age.
    fn next_of(&mut self, group: usize) -> Option<usize> {
        let open: Vec<usize> = (0..3).filter(|service| self.is_open(*service)).collect();
        let waiting = &self.waiting;
        let NaiveGroup { services, shares, turns } = &mut self.groups[group];
        let may_go =
            |task: &&Waiting| services.contains(&task.service) && open.contains(&task.service);
        let ready: Vec<&Waiting> = waiting.iter().filter(may_go).collect();
        let priority = shares
            .first(self.is_strict, |priority| ready.iter().any(|task| task.priority == priority))?;
        let of_class = || ready.iter().filter(|task| task.priority == priority);
        let service = turns
            .get_mut(&priority)?
            .first(|service| of_class().any(|task| task.service == service))?;
        let of_service = || of_class().filter(|task| task.service == service);
        let name = self
            .clients
            .get_mut(&(service, priority))?
            .first(|name| of_service().any(|task| task.name == name))?;
        let request = of_service().find(|task| task.name == name)?.request;
        waiting.iter().position(|task| task.request == request)
    }

    /// The worker with credit that has the fewest in flight, the latest to change among equals.
    fn best_of(&self, group: usize) -> Option<usize> {
        let all = self.workers.iter().enumerate();
        all.filter(|(_, worker)| worker.group == group)
            .filter(|(_, worker)| !worker.is_full && worker.in_flight < worker.window)
            .min_by_key(|(_, worker)| (worker.in_flight, u64::MAX - worker.changed))
            .map(|(place, _)| place)
    }

    fn dispatch(&mut self, place: usize, worker: usize) {
        let task = self.waiting[place];
        let cost = self.estimates[task.service].max(LEAST);
        let group = &mut self.groups[self.workers[worker].group];
        group.shares.charge(task.priority, cost);
        group.turns.get_mut(&task.priority).expect("1 to 10").charge(task.service, cost);
        let clients = self.clients.get_mut(&(task.service, task.priority));
        clients.expect("it waited").charge(task.name, cost);
        self.waiting.remove(place);
        self.send(task, worker, Some((self.workers[worker].group, cost)));
    }

    fn send(&mut self, task: Waiting, worker: usize, charged: Option<(usize, u64)>) {
        self.dispatched.push((task.request, worker));
        self.workers[worker].in_flight += 1;
        self.workers[worker].changed = self.tick();
        self.sent.push(Sent { task, worker, charged });
    }

    /// Its handler has run for so long.
    pub(super) fn done(&mut self, request: u64, took: u64) {
        let cost = took.max(LEAST);
        let sent = self.sent.iter().find(|sent| sent.task.request == request).expect("in flight");
        let (Waiting { service, priority, name, .. }, charged) = (sent.task, sent.charged);
        let estimate = &mut self.estimates[service];
        *estimate = match *estimate {
            0 => cost,
            known if cost > known => known + (cost - known) / 8,
            known => known - (known - cost) / 8,
        };
        if let Some((group, charged)) = charged {
            let group = &mut self.groups[group];
            group.shares.correct(priority, charged, cost);
            group.turns.get_mut(&priority).expect("1 to 10").correct(service, charged, cost);
            let clients = self.clients.get_mut(&(service, priority));
            clients.expect("it waited").correct(name, charged, cost);
        }
        let worker = self.free(request);
        self.feed(self.workers[worker].group);
        self.serve(service);
    }

    /// It comes back, and was not run.
    pub(super) fn recalled(&mut self, request: u64) {
        let sent = self.sent.iter().find(|sent| sent.task.request == request).expect("in flight");
        let (task, charged) = (sent.task, sent.charged);
        let worker = self.free(request);
        if let Some((group, charged)) = charged {
            let group = &mut self.groups[group];
            group.shares.pay(task.priority, charged as i64);
            group.turns.get_mut(&task.priority).expect("1 to 10").pay(task.service, charged as i64);
            let clients = self.clients.get_mut(&(task.service, task.priority));
            clients.expect("it waited").pay(task.name, charged as i64);
        }
        self.line_up(task);
        self.feed(self.workers[worker].group);
        self.serve(task.service);
    }

    /// Its worker holds it no more.
    fn free(&mut self, request: u64) -> usize {
        let place = self.sent.iter().position(|sent| sent.task.request == request);
        let place = place.expect("in flight");
        let (worker, service) = (self.sent[place].worker, self.sent[place].task.service);
        self.keep_line(service, |naive| {
            naive.sent.remove(place);
        });
        self.workers[worker].in_flight -= 1;
        self.workers[worker].changed = self.tick();
        worker
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

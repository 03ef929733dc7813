//! Deficit round robin the slow way: who takes turns is a list of names, searched through each time.

/// Nanoseconds that a task costs at least.
pub(super) const LEAST: u64 = 1_000;

/// "A moving average in which each cost weighs as much as it is long."
#[derive(Clone, Copy, Default)]
pub(super) struct Mean(u64);

impl Mean {
    fn value(self) -> u64 {
        self.0.max(LEAST)
    }

    fn guess(&mut self, cost: u64) {
        if self.0 == 0 && cost > LEAST {
            self.0 = cost;
        }
    }

    /// The mean's own cost moves it by 1/32, one half as long half as much, none by more than 1/4 or
    /// less than 1/1024.
    fn add(&mut self, cost: u64) {
        self.guess(cost);
        self.0 = self.value();
        let cost = cost.max(LEAST).min(8 * self.0);
        let parts = (cost * 4_096 / self.0).max(128);
        let moved = (cost.abs_diff(self.0) * parts / 131_072) as i64;
        self.0 = (self.0 as i64 + if cost > self.0 { moved } else { -moved }) as u64;
    }
}

/// One that takes turns.
struct Turn<N> {
    name: N,
    /// The round in which it goes on, and what it has then.
    round: u64,
    credit: i64,
    /// When it came to stand where it stands.
    since: u64,
}

/// Those that take equal turns.
pub(super) struct Turns<N> {
    all: Vec<Turn<N>>,
    round: u64,
    quantum: i64,
    mean: Mean,
    clock: u64,
}

impl<N: Copy + PartialEq> Turns<N> {
    pub(super) fn new() -> Self {
        let quantum = LEAST as i64;
        Self { all: Vec::new(), round: 1, quantum, mean: Mean::default(), clock: 0 }
    }

    fn of(&mut self, name: N) -> &mut Turn<N> {
        let place = self.all.iter().position(|turn| turn.name == name).unwrap_or_else(|| {
            self.all.push(Turn { name, round: 0, credit: 0, since: 0 });
            self.all.len() - 1
        });
        &mut self.all[place]
    }

    /// It has tasks again.
    pub(super) fn enter(&mut self, name: N) {
        self.clock += 1;
        let (round, quantum, since) = (self.round, self.quantum, self.clock);
        let turn = self.of(name);
        turn.since = since;
        if turn.round < round {
            (turn.round, turn.credit) = (round, quantum);
        }
    }

    /// Whose turn it is of those that have tasks.
    pub(super) fn first(&mut self, has_tasks: impl Fn(N) -> bool) -> Option<N> {
        let ready = || self.all.iter().filter(|turn| has_tasks(turn.name));
        let round = ready().map(|turn| turn.round).min()?;
        let first = ready().filter(|turn| turn.round == round).min_by_key(|turn| turn.since)?.name;
        if round > self.round {
            (self.round, self.quantum) = (round, self.mean.value() as i64);
        }
        Some(first)
    }

    pub(super) fn charge(&mut self, name: N, cost: u64) {
        self.mean.guess(cost);
        self.pay(name, -(cost as i64));
    }

    pub(super) fn correct(&mut self, name: N, charged: u64, cost: u64) {
        self.mean.add(cost);
        self.pay(name, charged as i64 - cost as i64);
    }

    pub(super) fn pay(&mut self, name: N, amount: i64) {
        self.clock += 1;
        let (round, quantum, since) = (self.round, self.quantum, self.clock);
        let turn = self.of(name);
        let mut balance = turn.credit;
        if turn.round < round {
            balance = quantum;
        }
        for _ in round..turn.round {
            balance -= quantum;
        }
        balance = (balance + amount).max(-2 * quantum).min(2 * quantum);
        let mut next = round;
        while balance <= 0 {
            balance += quantum;
            next += 1;
        }
        if turn.round != next {
            turn.since = since;
        }
        (turn.round, turn.credit) = (next, balance);
    }
}

/// What the classes of a group have used.
pub(super) struct Shares {
    /// Credit, the round of the last quantum, mean cost; priority 1 first.
    classes: Vec<(i64, u64, Mean)>,
    round: u64,
    unit: u64,
}

impl Shares {
    pub(super) fn new() -> Self {
        Self { classes: vec![(0, 0, Mean::default()); 11], round: 1, unit: (LEAST << 16) / 1_024 }
    }

    /// 1.5^(p - 1), in 1/1024.
    fn weight(priority: u8) -> u64 {
        (1_024.0 * 1.5_f64.powi(i32::from(priority) - 1)).round() as u64
    }

    fn quantum(&self, priority: u8) -> i64 {
        (self.unit * Self::weight(priority) / 65_536).max(1) as i64
    }

    pub(super) fn enter(&mut self, priority: u8) {
        let (round, quantum) = (self.round, self.quantum(priority));
        let (credit, paid, _) = &mut self.classes[usize::from(priority)];
        if *paid < round {
            for _ in 0..(round - *paid).min(3) {
                *credit += quantum;
            }
            *credit = (*credit).max(-2 * quantum).min(quantum);
            *paid = round;
        }
    }

    /// The most urgent class that has tasks and credit, in the first round in which there is one.
    pub(super) fn first(&mut self, is_strict: bool, has_tasks: impl Fn(u8) -> bool) -> Option<u8> {
        let ready: Vec<u8> = (1..=10).rev().filter(|priority| has_tasks(*priority)).collect();
        let credit = |shares: &Self, priority: u8| shares.classes[usize::from(priority)].0;
        if is_strict {
            return ready.first().copied();
        }
        if !ready.is_empty() && ready.iter().all(|priority| credit(self, *priority) <= 0) {
            let mean = |priority: u8| self.classes[usize::from(priority)].2.value();
            let units =
                ready.iter().map(|priority| mean(*priority) * 65_536 / Self::weight(*priority));
            self.unit = units.max().unwrap_or_default();
            for priority in &ready {
                let most = 2 * self.quantum(*priority);
                let credit = &mut self.classes[usize::from(*priority)].0;
                *credit = (*credit).max(-most);
            }
            while ready.iter().all(|priority| credit(self, *priority) <= 0) {
                self.round += 1;
                for priority in &ready {
                    let quantum = self.quantum(*priority);
                    self.classes[usize::from(*priority)].0 += quantum;
                    self.classes[usize::from(*priority)].1 = self.round;
                }
            }
        }
        ready.into_iter().find(|priority| credit(self, *priority) > 0)
    }

    pub(super) fn charge(&mut self, priority: u8, cost: u64) {
        self.classes[usize::from(priority)].2.guess(cost);
        self.pay(priority, -(cost as i64));
    }

    pub(super) fn correct(&mut self, priority: u8, charged: u64, cost: u64) {
        self.classes[usize::from(priority)].2.add(cost);
        self.pay(priority, charged as i64 - cost as i64);
    }

    pub(super) fn pay(&mut self, priority: u8, amount: i64) {
        let most = 2 * self.quantum(priority);
        let credit = &mut self.classes[usize::from(priority)].0;
        *credit = (*credit + amount).max(-most).min(most);
    }
}

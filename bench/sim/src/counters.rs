//! What happened how often: a campaign that never met a fault or a rare branch proves nothing of it.

use std::fmt;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident $class:ident $text:literal,)+) => {
        /// Something that is counted.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Count { $($(#[$doc])* $name,)+ }

        impl Count {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// What a report calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What kind of thing it is.
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)+ }
            }
        }
    };
}

/// A kind of counted things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A fault: each must occur in a campaign.
    Fault,
    /// A branch that few runs take: each must be taken in a campaign.
    Branch,
    /// For people only.
    Info,
}

counts! {
    /// A connection broke.
    Cut Fault "connection cut",
    /// A connection stood still for a while.
    Stall Fault "connection stalled",
    /// A connection became slow.
    Slow Fault "connection slow",
    /// A machine was cut off from a broker or from all.
    Partition Fault "partition",
    /// A peer's queue at its broker was full.
    Full Fault "peer full",
    /// A worker was killed from outside.
    WorkerKill Fault "worker killed",
    /// A worker was stopped from outside.
    WorkerStop Fault "worker stopped",
    /// A supervisor crashed.
    SupervisorKill Fault "supervisor killed",
    /// A supervisor was stopped, its workers were not.
    SupervisorStop Fault "supervisor stopped",
    /// A whole host stood still, and its clock did not.
    HostFreeze Fault "host suspended",
    /// A host's clock jumped forward.
    HostJump Fault "host clock jumped",
    /// A host was asked to leave, and came back as a new one.
    HostDrain Fault "host drained",
    /// A host's workers were to be started anew, one after the other.
    HostRenew Fault "host renewed",
    /// A worker that has no supervisor was killed.
    LonerKill Fault "unsupervised worker killed",
    /// A worker that has no supervisor was stopped.
    LonerStop Fault "unsupervised worker stopped",
    /// A broker crashed.
    BrokerKill Fault "broker killed",
    /// A broker was stopped.
    BrokerStop Fault "broker stopped",
    /// A broker's clock jumped forward.
    BrokerJump Fault "broker clock jumped",
    /// A broker was drained, and came back as a new one.
    BrokerDrain Fault "broker drained",
    /// A client crashed, and a new one came.
    ClientKill Fault "client killed",
    /// A client was stopped.
    ClientStop Fault "client stopped",
    /// A client's clock jumped forward.
    ClientJump Fault "client clock jumped",
    /// A client lost its socket.
    ClientReconnect Fault "client socket lost",
    /// A peer heard nothing of a broker for a while, or a broker nothing of it.
    Deaf Fault "deaf one way",
    /// An operator paused a service for a while.
    Pause Fault "service paused",
    /// An operator purged a service that had tasks waiting.
    Purge Fault "service purged",
    /// An operator cancelled a task.
    OperatorCancel Fault "task cancelled by an operator",
    /// An operator asked a worker or a host to leave.
    OperatorDrain Fault "drained by an operator",
    /// An operator ran dead letters again.
    Replay Fault "dead letters replayed",
    /// An operator threw dead letters away.
    DeadPurge Fault "dead letters purged",
    /// A peer sent what it may not.
    Rogue Fault "rogue peer",

    /// A crash was charged to a task.
    CrashCharged Branch "crash charged",
    /// A host's tasks were requeued because its time was up.
    HostGone Branch "host given up by lease",
    /// LOST: killed for its max runtime.
    LostMaxRuntime Branch "LOST, max runtime",
    /// LOST: killed because it stood still.
    LostStalled Branch "LOST, stalled",
    /// LOST: killed because a lease ended.
    LostLeaseEnded Branch "LOST, lease ended",
    /// LOST: killed by a hard cancel.
    LostCancelled Branch "LOST, cancelled",
    /// LOST: killed by the kernel for want of memory, and charged.
    LostOutOfMemory Branch "LOST, out of memory",
    /// LOST: left with its host.
    LostShutdown Branch "LOST, shutdown",
    /// LOST named started attempts beside the running one.
    LostStarted Branch "LOST with started attempts",
    /// LOST was sent again in a later session.
    LostAgain Branch "LOST sent again",
    /// RECALL.
    RecallSent Branch "RECALL",
    /// RECALLED.
    Recalled Branch "RECALLED",
    /// An attempt was refused before its worker had read it.
    RefusedUnread Branch "attempt refused unread",
    /// The refusal table was full.
    RefusalFull Branch "refusal table full",
    /// RETURN.
    Returned Branch "RETURN",
    /// DONE was sent again in a later session.
    DoneAgain Branch "DONE sent again",
    /// READY listed attempts.
    ReadyHeld Branch "READY listed attempts",
    /// READY listed attempts of an earlier epoch.
    ReadyForeign Branch "READY listed another epoch",
    /// A request joined the task of its key.
    KeyJoined Branch "joined the task of a key",
    /// A request was told what the task of its key had ended with.
    KeyTold Branch "outcome kept under a key",
    /// A FETCH was answered PENDING.
    FetchNotEnded Branch "FETCH, not ended",
    /// No broker knew a key that was fetched.
    FetchUnknown Branch "FETCH, unknown key",
    /// A FETCH was answered with an outcome.
    Fetched Branch "FETCH, outcome",
    /// A request ended with the run of another one.
    KeyShared Branch "outcome shared by key",
    /// BUSY: no room for another key.
    BusyKeys Branch "BUSY, no room for a key",
    /// BUSY: the task of the key was being cancelled.
    BusyCancelling Branch "BUSY, key being cancelled",
    /// REFUSED: the key was another service's.
    RefusedKey Branch "REFUSED, key of another service",
    /// A task was started although its client was gone.
    RanOn Branch "ran on without its client",
    /// CANCEL, cooperative.
    CancelSoft Branch "CANCEL, soft",
    /// CANCEL, hard.
    CancelHard Branch "CANCEL, hard",
    /// A handler saw its cancel flag.
    CancelSeen Branch "cancel flag seen",
    /// A worker was sent more than it may hold.
    Overflow Info "TASK beyond the window",
    /// A session was given up because its lease lapsed.
    LeaseLapsed Branch "lease lapsed on a page",
    /// SIGSTOP, a look at the page, SIGCONT.
    LetGoOn Branch "stopped, looked at, let go on",
    /// A broker gave a peer up.
    PeerGone Branch "peer gone",
    /// A client's RESULT was sent again in a later session.
    ResultAgain Branch "RESULT sent again",
    /// An end of a request that no broker spoke: deadline.
    LocalExpired Branch "ended here: expired",
    /// An end of a request that no broker spoke: every broker was to be left alone.
    LocalBusy Branch "ended here: busy",
    /// An end of a request that no broker spoke: cancel.
    LocalCancelled Branch "ended here: cancelled",
    /// An end of a request that no broker spoke: at-most-once.
    LocalLost Branch "ended here: lost",
    /// A request was handed in again under a higher submission.
    Resubmitted Branch "submission 2 or higher",
    /// EXPIRED before it was sent to a worker.
    ExpiredPending Branch "EXPIRED, pending",
    /// EXPIRED while a worker had it.
    ExpiredInFlight Branch "EXPIRED, in flight",
    /// A lost client was dropped.
    ClientDropped Branch "lost client dropped",
    /// RESULT BUSY.
    Busy Branch "BUSY",
    /// RESULT BUSY because of the client's own window.
    BusyWindow Info "BUSY, client window",
    /// RESULT BUSY because of the service's own limits.
    BusyService Branch "BUSY, service limits",
    /// BUSY because a task would end after its deadline.
    BusyLate Branch "BUSY, too late",
    /// Tasks waited for their service's cap of attempts in flight.
    HeldByCap Branch "held back by a cap",
    /// Tasks waited for their service's rate.
    HeldByRate Branch "held back by a rate",
    /// Tasks waited for an operator to resume their service.
    HeldByPause Branch "held back by a pause",
    /// RESULT REFUSED.
    Refused Branch "REFUSED",
    /// A submission that joined a task.
    Joined Branch "submission joined",
    /// A submission that was known.
    Ignored Branch "submission ignored",
    /// A submission lower than the known one.
    Stale Info "submission stale",
    /// Ended OK.
    Ok Branch "ended OK",
    /// Ended FAILED.
    Failed Branch "ended FAILED",
    /// Ended TIMED_OUT.
    TimedOut Branch "ended TIMED_OUT",
    /// Ended CRASHED.
    Crashed Branch "ended CRASHED",
    /// Ended CANCELLED.
    Cancelled Branch "ended CANCELLED",
    /// Ended LOST.
    Lost Branch "ended LOST",
    /// Ended NO_SERVICE.
    NoService Branch "ended NO_SERVICE",
    /// A request took over an attempt of its broker's earlier life.
    Adopted Branch "adopted after a restart",
    /// A task was handed in that was to start later.
    PutOff Branch "delayed to its start",
    /// A bad start after which its task waited to be tried again.
    Retried Branch "delayed for another try",
    /// A task succeeded after starts that had ended badly.
    OkAfterBad Branch "ended OK after a bad start",
    /// Requeued.
    Requeued Branch "requeued",
    /// An end that was not open any more.
    StaleEnd Branch "stale end",
    /// An end of an attempt that its sender does not hold.
    ForeignEnd Branch "foreign end",
    /// An update of kind `latest` was told.
    LatestHeard Branch "PROGRESS latest heard",
    /// An update of kind `stream` was told.
    StreamHeard Branch "PROGRESS stream heard",
    /// All of a host's workers have been started anew.
    Renewed Branch "host renewed to the end",
    /// A worker took too long to leave for a new one.
    RenewalOverdue Branch "worker late to be renewed",
    /// A client heard a second attempt speak.
    HeardAgain Branch "PROGRESS of another attempt",
    /// An update was of no open attempt, or taken before.
    UpdateStale Branch "PROGRESS stale",
    /// A handler had to wait with an update.
    UpdateWaits Branch "PROGRESS waits for ACK",
    /// A worker was held up by a client that does not take its updates.
    HeldUp Branch "worker held up by its client",
    /// A task left a dead letter.
    Dead Branch "dead letter",
    /// A dead letter was listed.
    DeadSeen Branch "dead letter listed",
    /// A dead letter left for want of room.
    DeadDisplaced Branch "dead letter displaced",
    /// A dead letter left because of its age.
    DeadTooOld Branch "dead letter too old",
    /// A dead letter became a task again.
    Replayed Branch "dead letter replayed",
    /// A handler was entered for one that had become a task again.
    ReplayStarted Branch "replay started",
    /// There was no room for a dead letter's task.
    ReplayBusy Branch "replay without room",
    /// A replay left a letter of its own.
    ReplayDied Branch "replay died again",
    /// A session was refused for what its peer sent.
    Malformed Branch "session refused",
    /// A command without a session.
    NoSession Branch "NO_SESSION",
    /// Two attempts at once: the host's supervisor was stopped.
    OverlapStopped Branch "overlap excused: supervisor stopped",
    /// Two attempts at once: other brokers or lives of a broker.
    OverlapBrokers Branch "overlap excused: resubmission",
    /// Two attempts at once: a worker without a supervisor was silent for too long.
    OverlapLoner Branch "overlap excused: unsupervised",

    /// Requests handed in.
    Requests Info "requests",
    /// Attempts started.
    Started Info "attempts started",
    /// Messages that arrived.
    Messages Info "messages",
    /// Commands in them.
    Commands Info "commands",
    /// Virtual seconds.
    Seconds Info "virtual seconds",
    /// Steps.
    Steps Info "steps",
}

/// How often each happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters(Vec<u64>);

impl Default for Counters {
    fn default() -> Self {
        Self(vec![0; Count::ALL.len()])
    }
}

impl Counters {
    /// Once more.
    pub fn add(&mut self, count: Count) {
        self.add_many(count, 1);
    }

    /// So many times more.
    pub fn add_many(&mut self, count: Count, many: u64) {
        self.0[count as usize] += many;
    }

    /// How often.
    pub fn of(&self, count: Count) -> u64 {
        self.0[count as usize]
    }

    /// Adds those of another run.
    pub fn join(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            *ours += theirs;
        }
    }

    /// Faults and branches that never happened.
    pub fn missing(&self) -> Vec<Count> {
        let all = Count::ALL.iter().copied();
        all.filter(|count| count.class() != Class::Info && self.of(*count) == 0).collect()
    }

    /// How many faults there were.
    pub fn faults(&self) -> u64 {
        let faults = Count::ALL.iter().filter(|count| count.class() == Class::Fault);
        faults.map(|count| self.of(*count)).sum()
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (class, title) in
            [(Class::Fault, "faults"), (Class::Branch, "branches"), (Class::Info, "in all")]
        {
            writeln!(f, "{title}:")?;
            for count in Count::ALL.iter().filter(|count| count.class() == class) {
                writeln!(f, "  {:<38} {:>12}", count.name(), self.of(*count))?;
            }
        }
        Ok(())
    }
}

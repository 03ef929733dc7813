//! Outcomes: how a request ends, how an attempt ends, why a worker died, why a peer was refused.

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)+ }

        impl $name {
            /// Every value, in the order of the wire.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value for a number on the wire; `None` if this version does not know it.
            pub const fn from_wire(value: u64) -> Option<Self> {
                match value { $($value => Some(Self::$variant),)+ _ => None }
            }

            /// The number on the wire.
            pub const fn to_wire(self) -> u8 { self as u8 }

            /// The name that PROTOCOL.md gives it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

wire_enum! {
    /// How a request ended: the one final word to its client.
    Status {
        /// The handler returned a result.
        Ok = 0 "OK",
        /// The handler returned an error.
        Failed = 1 "FAILED",
        /// The deadline passed before the task ended.
        Expired = 2 "EXPIRED",
        /// The attempt ran longer than its max runtime and was killed.
        TimedOut = 3 "TIMED_OUT",
        /// Its tries were used up by crashes of the worker.
        Crashed = 4 "CRASHED",
        /// Its client cancelled it.
        Cancelled = 5 "CANCELLED",
        /// The broker had no room; comes with the time after which to try again.
        Busy = 6 "BUSY",
        /// No worker served the service for `service_wait`.
        NoService = 7 "NO_SERVICE",
        /// A limit or a permission stands against it.
        Refused = 8 "REFUSED",
        /// An at-most-once task whose worker was lost: it may or may not have run.
        Lost = 9 "LOST",
    }
}

wire_enum! {
    /// How an attempt ended, in the worker's words (DONE).
    EndStatus {
        /// The handler returned a result.
        Ok = 0 "OK",
        /// The handler returned an error, and may be tried again; the payload says which.
        Failed = 1 "FAILED",
        /// The handler saw the cancel flag and stopped.
        Cancelled = 5 "CANCELLED",
        /// The handler returned an error that another try would not mend; the payload says which.
        FailedFinal = 10 "FAILED_FINAL",
    }
}

impl From<EndStatus> for Status {
    fn from(end: EndStatus) -> Self {
        match end {
            EndStatus::Ok => Self::Ok,
            EndStatus::Failed | EndStatus::FailedFinal => Self::Failed,
            EndStatus::Cancelled => Self::Cancelled,
        }
    }
}

wire_enum! {
    /// Who a peer is (HELLO).
    Role {
        /// Submits tasks; speaks to the frontend.
        Client = 1 "client",
        /// Runs tasks; speaks to the backend.
        Worker = 2 "worker",
        /// Watches the workers of one host; speaks to the backend.
        Supervisor = 3 "supervisor",
    }
}

wire_enum! {
    /// Why a session was refused and closed (REFUSED).
    RefusedCode {
        /// The bytes are not the command that they claim to be.
        Malformed = 1 "malformed",
        /// A critical op that this version does not know.
        UnknownOp = 2 "unknown op",
        /// A size, count or depth past the limit of WELCOME.
        TooLarge = 3 "too large",
        /// The number of frames does not fit what the command announces.
        WrongFrames = 4 "wrong frames",
        /// No version in common.
        Version = 5 "version",
        /// A command that this role or socket may not send.
        NotAllowed = 6 "not allowed",
        /// The window was exceeded by a worker or supervisor.
        Window = 7 "window",
        /// The broker has no room for another session.
        Full = 8 "full",
    }
}

wire_enum! {
    /// Where a listed attempt stands in its worker (READY).
    HeldState {
        /// Received, not started.
        Waiting = 0 "waiting",
        /// Started.
        Claimed = 1 "claimed",
        /// Ended; its end is not yet acknowledged.
        Ended = 2 "ended",
    }
}

wire_enum! {
    /// Why a worker process is gone (LOST). A death that the supervisor caused charges no task.
    LossKind {
        /// It exited by itself; the detail is the exit code.
        Exited = 0 "exited",
        /// A signal that the supervisor did not send; the detail is its number.
        Signalled = 1 "signalled",
        /// Killed: the running task passed its max runtime.
        MaxRuntime = 2 "max runtime",
        /// Killed: it held tasks and did not move for `stall_max`.
        Stalled = 3 "stalled",
        /// Killed: the broker's lease on the host ended.
        LeaseEnded = 4 "lease ended",
        /// Killed: the running task was cancelled hard.
        Cancelled = 5 "cancelled",
        /// Stopped because the host leaves.
        Shutdown = 6 "shutdown",
        /// The supervisor that should know is itself new: it only finds that the process is gone.
        Unknown = 7 "unknown",
        /// The kernel killed it for want of memory.
        OutOfMemory = 8 "out of memory",
    }
}

impl LossKind {
    /// Whether the running task is charged with a crash: the worker died and no supervisor killed it.
    pub const fn is_charged(self) -> bool {
        matches!(self, Self::Exited | Self::Signalled | Self::OutOfMemory)
    }
}

wire_enum! {
    /// How an update of a running task is delivered (PROGRESS).
    ProgressKind {
        /// Only the newest matters: conflated under pressure, not acknowledged.
        Latest = 0 "latest",
        /// Each matters: acknowledged, never dropped.
        Stream = 1 "stream",
    }
}

wire_enum! {
    /// Answer to FETCH.
    FetchState {
        /// The task has not ended.
        Pending = 0 "PENDING",
        /// No such key, or its retention has passed.
        Unknown = 1 "UNKNOWN",
    }
}

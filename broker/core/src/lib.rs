//! The broker's machine: every decision, no IO. See ARCHITECTURE.md, "The machines have no IO".
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod admission;
mod broker;
mod classes;
mod client;
mod config;
mod credit;
mod dead;
mod dead_view;
mod delay;
mod dispatch;
mod event;
mod fair;
mod flow;
mod follow;
mod gate;
mod group;
mod inherited;
mod invariants;
mod keys;
mod ledger;
mod list;
mod offer;
mod on_admin;
mod on_client;
mod on_host;
mod on_progress;
mod on_session;
mod on_timer;
mod on_worker;
mod outbox;
mod pace;
mod progress;
mod random;
mod recall;
mod replay;
mod retry;
mod service;
mod session;
mod shares;
mod slab;
mod state;
mod task;
mod time;
mod timer;
mod view;
mod waiting;
mod worker;

pub use broker::{Broker, Counts};
pub use config::{CoreConfig, ServiceLimits, TaskDefaults};
pub use dead::{DeadPage, DeadReason, DeathCause, LetterId};
pub use dead_view::LetterView;
pub use event::{Body, Conn, DoneEvent, Event, Excerpt, ProgressEvent, Side, SubmitEvent};
pub use gate::Rate;
pub use ledger::Ledger;
pub use on_admin::{AdminCommand, AdminObjection, AdminReply, DrainTarget, Purge};
pub use outbox::{Outbox, ProgressHead, ResultBody, ResultHead, TaskHead};
pub use time::{Span, Time};
pub use view::{
    AHEAD_MAX, ClientView, Explanation, HostView, Obstacle, ServiceView, TaskStanding, TaskView,
    WorkerStanding, WorkerView,
};

//! What the machine caused, with owned copies.

use pinmesh_core::{Conn, Outbox, ProgressHead, ResultBody, ResultHead, TaskHead};
use pinmesh_protocol::command::{
    Accepted, Attempts, CancelAttempt, Fetched, FromBroker, Heartbeat, StageTimes, Welcome,
};
use pinmesh_protocol::status::{RefusedCode, Status};

use super::TestBody;

/// One effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Task(TaskSent),
    Result { to: Conn, head: ResultHead, body: Said },
    Progress { to: Conn, head: ProgressHead, body: TestBody },
    Send { to: Conn, command: Sent },
    Close(Conn),
    Stages(StageTimes),
}

/// TASK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TaskSent {
    pub(crate) to: Conn,
    pub(crate) head: TaskHead,
    pub(crate) body: TestBody,
}

/// The payload of a RESULT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    Handler(TestBody),
    Text(String),
}

/// Any other command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    Welcome(Welcome),
    Refused(RefusedCode, String),
    NoSession,
    Heartbeat(Heartbeat),
    Ack(u64),
    Accepted(Accepted),
    Fetched(Fetched),
    Cancel(CancelAttempt),
    Recall(Attempts),
    Other(String),
}

/// An outbox that keeps everything.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) effects: Vec<Effect>,
}

impl Outbox<TestBody> for Recorder {
    fn task(&mut self, to: Conn, head: &TaskHead, body: &TestBody) {
        self.effects.push(Effect::Task(TaskSent { to, head: *head, body: *body }));
    }

    fn result(&mut self, to: Conn, head: &ResultHead, body: ResultBody<'_, TestBody>) {
        let body = match body {
            ResultBody::Handler(body) => Said::Handler(*body),
            ResultBody::Text(text) => Said::Text(text.into()),
        };
        self.effects.push(Effect::Result { to, head: *head, body });
    }

    fn progress(&mut self, to: Conn, head: &ProgressHead, body: &TestBody) {
        self.effects.push(Effect::Progress { to, head: *head, body: *body });
    }

    fn send(&mut self, to: Conn, command: FromBroker<'_>) {
        let command = match command {
            FromBroker::Welcome(welcome) => Sent::Welcome(welcome),
            FromBroker::Refused(refused) => Sent::Refused(refused.code, refused.reason.into()),
            FromBroker::NoSession => Sent::NoSession,
            FromBroker::Heartbeat(heartbeat) => Sent::Heartbeat(heartbeat),
            FromBroker::Ack(count) => Sent::Ack(count),
            FromBroker::Accepted(accepted) => Sent::Accepted(accepted),
            FromBroker::Fetched(fetched) => Sent::Fetched(fetched),
            FromBroker::Cancel(cancel) => Sent::Cancel(cancel),
            FromBroker::Recall(recall) => Sent::Recall(recall),
            other => Sent::Other(format!("{other:?}")),
        };
        self.effects.push(Effect::Send { to, command });
    }

    fn close(&mut self, conn: Conn) {
        self.effects.push(Effect::Close(conn));
    }

    fn stages(&mut self, stages: &StageTimes) {
        self.effects.push(Effect::Stages(*stages));
    }
}

/// Every TASK, in order.
pub(crate) fn tasks(effects: &[Effect]) -> Vec<TaskSent> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Task(task) => Some(*task),
            _ => None,
        })
        .collect()
}

/// Every RESULT, in order: to whom, which request, how it ended.
pub(crate) fn results(effects: &[Effect]) -> Vec<(Conn, u64, Status)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Result { to, head, .. } => Some((*to, head.request_id.0, head.status)),
            _ => None,
        })
        .collect()
}

/// Every other command to this peer, in order, echoes of heartbeats left out.
pub(crate) fn sent_to(effects: &[Effect], conn: Conn) -> Vec<Sent> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { command: Sent::Heartbeat(_), .. } => None,
            Effect::Send { to, command } if *to == conn => Some(command.clone()),
            _ => None,
        })
        .collect()
}

/// Of each CANCEL to that peer, whether it is hard.
pub(crate) fn cancels(effects: &[Effect], to: Conn) -> Vec<bool> {
    let said = sent_to(effects, to).into_iter();
    said.filter_map(|sent| match sent {
        Sent::Cancel(cancel) => Some(cancel.is_hard),
        _ => None,
    })
    .collect()
}

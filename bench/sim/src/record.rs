//! What a broker's machine was told and what it caused, as the checker sees it.

use pinmesh_core::{
    Body as _, Conn, Excerpt, Outbox, ProgressHead, ResultBody, ResultHead, TaskHead,
};
use pinmesh_protocol::command::{
    Accepted, Attempts, CancelAttempt, Fetched, FromBroker, Heartbeat, StageTimes, Welcome, Window,
};
use pinmesh_protocol::id::ContentType;
use pinmesh_protocol::status::RefusedCode;

/// The body of a task or a result: what travels, and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    /// Encoding of the payload.
    pub content_type: ContentType,
    /// The client's options, as they came; results have none.
    pub options: Option<Box<[u8]>>,
    /// Input or output.
    pub payload: Box<[u8]>,
}

impl pinmesh_core::Body for Body {
    fn payload_bytes(&self) -> u64 {
        self.payload.len() as u64
    }

    fn excerpt(&self, bytes_max: usize) -> Excerpt {
        Excerpt {
            content_type: self.content_type,
            bytes: self.payload.iter().take(bytes_max).copied().collect(),
            of_bytes: self.payload_bytes(),
        }
    }
}

/// The payload of a RESULT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// A handler's output.
    Handler(Box<[u8]>),
    /// The mesh's words.
    Text(Box<str>),
}

/// A command that has no method of its own in the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum Sent {
    Welcome(Welcome),
    Refused(RefusedCode),
    NoSession,
    Heartbeat(Heartbeat),
    Goodbye,
    Ack(u64),
    Window(Window),
    Accepted(Accepted),
    Fetched(Fetched),
    Drain,
    Recall(Attempts),
    Cancel(CancelAttempt),
    /// SERVICE, and RESULT, PROGRESS or TASK outside their own methods: a broker never sends these.
    Other,
}

/// One effect of one event, in the order in which the machine caused them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// An attempt goes to a worker.
    Task {
        /// Whose socket.
        to: Conn,
        /// TASK without its body.
        head: TaskHead,
        /// Bytes of its payload.
        bytes: u64,
    },
    /// A final word goes to a client.
    Result {
        /// Whose socket.
        to: Conn,
        /// RESULT without its payload.
        head: ResultHead,
        /// Its payload.
        said: Said,
    },
    /// An update goes to a client.
    Progress {
        /// Whose socket.
        to: Conn,
        /// PROGRESS without its payload.
        head: ProgressHead,
        /// Its payload.
        payload: Box<[u8]>,
    },
    /// Any other command.
    Send {
        /// Whose socket.
        to: Conn,
        /// The command.
        command: Sent,
    },
    /// The session of a socket is closed.
    Close(Conn),
    /// Stage times of an attempt that ended its task.
    Stages(StageTimes),
}

/// An outbox that notes every effect and hands it on.
#[derive(Debug)]
pub struct Recorder<'a, O> {
    /// Noted effects of this event.
    pub effects: &'a mut Vec<Effect>,
    /// Where they go.
    pub next: &'a mut O,
}

impl<O: Outbox<Body>> Outbox<Body> for Recorder<'_, O> {
    fn task(&mut self, to: Conn, head: &TaskHead, body: &Body) {
        self.effects.push(Effect::Task { to, head: *head, bytes: body.payload_bytes() });
        self.next.task(to, head, body);
    }

    fn result(&mut self, to: Conn, head: &ResultHead, body: ResultBody<'_, Body>) {
        let said = match body {
            ResultBody::Handler(body) => Said::Handler(body.payload.clone()),
            ResultBody::Text(text) => Said::Text(text.into()),
        };
        self.effects.push(Effect::Result { to, head: *head, said });
        self.next.result(to, head, body);
    }

    fn progress(&mut self, to: Conn, head: &ProgressHead, body: &Body) {
        self.effects.push(Effect::Progress { to, head: *head, payload: body.payload.clone() });
        self.next.progress(to, head, body);
    }

    fn send(&mut self, to: Conn, command: FromBroker<'_>) {
        let sent = match &command {
            FromBroker::Welcome(welcome) => Sent::Welcome(*welcome),
            FromBroker::Refused(refused) => Sent::Refused(refused.code),
            FromBroker::NoSession => Sent::NoSession,
            FromBroker::Heartbeat(heartbeat) => Sent::Heartbeat(*heartbeat),
            FromBroker::Goodbye => Sent::Goodbye,
            FromBroker::Ack(count) => Sent::Ack(*count),
            FromBroker::Window(window) => Sent::Window(*window),
            FromBroker::Accepted(accepted) => Sent::Accepted(*accepted),
            FromBroker::Fetched(fetched) => Sent::Fetched(*fetched),
            FromBroker::Drain => Sent::Drain,
            FromBroker::Recall(recall) => Sent::Recall(recall.clone()),
            FromBroker::Cancel(cancel) => Sent::Cancel(*cancel),
            FromBroker::Service(_)
            | FromBroker::Result(_)
            | FromBroker::Progress(_)
            | FromBroker::Task(_) => Sent::Other,
        };
        self.effects.push(Effect::Send { to, command: sent });
        self.next.send(to, command);
    }

    fn close(&mut self, conn: Conn) {
        self.effects.push(Effect::Close(conn));
        self.next.close(conn);
    }

    fn stages(&mut self, stages: &StageTimes) {
        self.effects.push(Effect::Stages(*stages));
        self.next.stages(stages);
    }
}

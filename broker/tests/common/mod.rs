//! A real broker process and peers that speak to it.
#![allow(dead_code, missing_docs, reason = "each test file uses its own part")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use pinmesh_protocol::batch::{BatchReader, BatchWriter};
use pinmesh_protocol::codec::write_to_broker;
use pinmesh_protocol::command::{FromBroker, Hello, Payload, Ready, ToBroker, Welcome};
use pinmesh_protocol::id::{Incarnation, PeerId, Slot};
use pinmesh_protocol::limits;
use pinmesh_protocol::status::Role;
use pinmesh_transport::{
    Context, ContextOptions, Dealer, Endpoint, Frame, Message, Poller, SocketOptions, Token,
};
use rustix::process::{Pid, Signal, kill_process};

/// Far beyond what anything here takes; a test that needs it all has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn broker_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinmesh-broker"));
    command.env_remove("PINMESH_LOG").stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    broker_command().args(args).output().expect("the broker's binary runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) struct Broker {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    pub(crate) ready_line: String,
    pub(crate) frontend: Endpoint,
    pub(crate) backend: Endpoint,
}

impl Broker {
    /// Starts one on ports of the system's choice and waits for its readiness line.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = broker_command()
            .args(["--frontend", "tcp://127.0.0.1:0", "--backend", "tcp://127.0.0.1:*"])
            .args(if args.contains(&"--http") { &[][..] } else { &["--http", "127.0.0.1:0"] })
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker's binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut ready_line = String::new();
        stdout.read_line(&mut ready_line).expect("stdout is readable");
        let field = |name: &str| {
            let start = ready_line.find(name).map(|at| at + name.len());
            let rest = start.map(|start| &ready_line[start..]);
            rest.and_then(|rest| rest.split_whitespace().next()).map(str::to_owned)
        };
        let (Some(frontend), Some(backend)) = (field("frontend="), field("backend=")) else {
            let mut errors = String::new();
            let _ = child.stderr.take().expect("piped").read_to_string(&mut errors);
            panic!("no readiness line but {ready_line:?}; {errors}");
        };
        let parse = |text: String| text.parse::<Endpoint>().expect("a bound endpoint");
        let (frontend, backend) = (parse(frontend), parse(backend));
        Self { child, _stdout: stdout, ready_line, frontend, backend }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the broker is ours");
    }

    /// Whoever read its stderr goes away.
    pub(crate) fn close_stderr(&mut self) {
        drop(self.child.stderr.take());
    }

    /// Waits for its end, where nobody reads its stderr.
    pub(crate) fn end_unheard(mut self) -> ExitStatus {
        self.child.wait().expect("our child")
    }

    /// Waits for its end; its exit code and what it said on stderr.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let mut errors = String::new();
        let mut stderr = self.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut errors).expect("UTF-8");
        (self.child.wait().expect("our child"), errors)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn hello(role: Role, peer: u8) -> ToBroker<'static> {
    ToBroker::Hello(Hello {
        version_min: limits::VERSION_MIN,
        version_max: limits::VERSION_MAX,
        role,
        peer_id: PeerId([peer; 16]),
        name: "test@here",
        nonce: 7,
        features: 0,
    })
}

pub(crate) fn ready(service: &str) -> ToBroker<'_> {
    ToBroker::Ready(Ready {
        host: None,
        slot: Slot(0),
        incarnation: Incarnation(1),
        services: vec![service],
        labels: Vec::new(),
        window_tasks: 16,
        window_bytes: 64 << 20,
        held: Vec::new(),
        part: 0,
        parts: 1,
    })
}

/// One socket of a peer.
pub(crate) struct Peer {
    dealer: Dealer,
    poller: Poller,
    message: Message,
    /// Commands of the message that have been looked at.
    read: usize,
}

impl Peer {
    pub(crate) fn connect(endpoint: &Endpoint) -> Self {
        let context = Context::new(&ContextOptions::default()).expect("a context");
        let mut dealer =
            Dealer::connect(&context, endpoint, &SocketOptions::default()).expect("a socket");
        let mut poller = Poller::new().expect("a poller");
        poller.register(&mut dealer, Token(0)).expect("a fresh token");
        Self { dealer, poller, message: Message::default(), read: 0 }
    }

    /// Connects, says HELLO and waits for WELCOME.
    pub(crate) fn welcomed(endpoint: &Endpoint, role: Role, peer: u8) -> (Self, Welcome) {
        let mut socket = Self::connect(endpoint);
        socket.send(&[hello(role, peer)]);
        let welcome = socket.expect("WELCOME", |command, _| match command {
            FromBroker::Welcome(welcome) => Some(*welcome),
            _ => None,
        });
        (socket, welcome)
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.dealer.send(bytes, &mut Vec::new()).expect("a socket in good order");
    }

    pub(crate) fn send(&mut self, commands: &[ToBroker<'_>]) {
        let mut bytes = Vec::new();
        commands.iter().for_each(|command| write_to_broker(&mut bytes, command));
        self.send_bytes(&bytes);
    }

    /// Sends one command whose payload is made of attachments if it is long.
    pub(crate) fn send_with(
        &mut self,
        payload: &[u8],
        command: impl Fn(Payload<'_>) -> ToBroker<'_>,
    ) {
        let mut batch: BatchWriter<Frame> = BatchWriter::new();
        let in_command = if payload.len() < limits::INLINE_BYTES_MAX {
            Payload::Inline(payload)
        } else {
            let frames = payload.chunks(limits::FRAME_BYTES_MAX);
            Payload::Frames(batch.attach(frames.map(|f| (Frame::copy_of(f), f.len()))))
        };
        write_to_broker(batch.bytes_mut(), &command(in_command));
        let bytes = batch.bytes().to_vec();
        let _ = self.dealer.send(&bytes, batch.attachments_mut()).expect("in good order");
    }

    /// Reads on until `look` finds what it wants; it is given each command and the frames of its
    /// message. Heartbeats of our own keep the session alive meanwhile.
    pub(crate) fn expect<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&FromBroker<'_>, &[Frame]) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + LIMIT;
        let mut seen = Vec::new();
        loop {
            let lens: Vec<_> = self.message.frames.iter().skip(1).map(|f| f.len()).collect();
            let mut reader = BatchReader::new(self.message.body(), &lens);
            let mut index = 0;
            while let Some(command) = reader.next_from_broker() {
                let command = command.expect("the broker speaks the protocol");
                index += 1;
                if index <= self.read {
                    continue;
                }
                self.read = index;
                if let Some(found) = look(&command, &self.message.frames) {
                    return found;
                }
                seen.push(format!("{command:?}").chars().take(200).collect::<String>());
            }
            while !self.dealer.recv(&mut self.message).expect("in good order") {
                let left = deadline.saturating_duration_since(Instant::now());
                assert!(!left.is_zero(), "no {what} but {seen:?}");
                let mut sockets: [&mut dyn pinmesh_transport::Pollable; 1] = [&mut self.dealer];
                let _ = self.poller.wait(&mut sockets, Some(left), Duration::ZERO).expect("wait");
            }
            self.read = 0;
        }
    }

    pub(crate) fn expect_no_session(&mut self) {
        self.expect("NO_SESSION", |command, _| {
            matches!(command, FromBroker::NoSession).then_some(())
        });
    }
}

/// The bytes of a payload, wherever they are.
pub(crate) fn payload_bytes(payload: &Payload<'_>, frames: &[Frame]) -> Vec<u8> {
    match payload {
        Payload::Inline(bytes) => bytes.to_vec(),
        Payload::Frames(span) => {
            let first = span.first as usize;
            frames[first..first + span.frames as usize].iter().flat_map(|f| f.to_vec()).collect()
        }
    }
}

//! A peer that sends whatever it likes: a bare DEALER of libzmq, without our session code.

use std::time::Instant;

use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::codec::write_to_broker;
use pinmesh_protocol::command::{
    FromBroker, Hello, Payload, Ready, ServiceRef, Submit, ToBroker, Welcome,
};
use pinmesh_protocol::id::{
    ContentType, Incarnation, PeerId, Priority, RequestId, Slot, Submission,
};
use pinmesh_protocol::limits;
use pinmesh_protocol::status::{RefusedCode, Role};

use crate::LIMIT;

/// HELLO of a peer whose id is this byte sixteen times.
pub fn hello(role: Role, peer: u8) -> ToBroker<'static> {
    ToBroker::Hello(Hello {
        version_min: limits::VERSION_MIN,
        version_max: limits::VERSION_MAX,
        role,
        peer_id: PeerId([peer; 16]),
        name: "raw@tests",
        nonce: u64::from(peer),
        features: 0,
    })
}

/// READY of a worker without a supervisor.
pub fn ready(service: &str) -> ToBroker<'_> {
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

/// SUBMIT of a task with everything else at its default.
pub fn submit<'a>(request: u64, service: &'a str, payload: Payload<'a>) -> ToBroker<'a> {
    ToBroker::Submit(Submit {
        request_id: RequestId(request),
        submission: Submission(1),
        service: ServiceRef::Name(service),
        priority: Priority::default(),
        deadline_ns: None,
        content_type: ContentType::RAW,
        options: None,
        payload,
    })
}

/// The bytes of a payload, wherever they are; `frames` are those after the first.
pub fn payload_of(payload: &Payload<'_>, frames: &[Vec<u8>]) -> Vec<u8> {
    match payload {
        Payload::Inline(bytes) => bytes.to_vec(),
        Payload::Frames(span) => {
            let first = span.first as usize - 1;
            frames[first..first + span.frames as usize].concat()
        }
    }
}

/// One socket.
pub struct RawPeer {
    socket: zmq::Socket,
    frames: Vec<Vec<u8>>,
    /// Commands of the message that have been looked at.
    read: usize,
}

impl RawPeer {
    /// Connects.
    ///
    /// # Panics
    /// libzmq refuses.
    pub fn connect(endpoint: &str) -> Self {
        let socket = zmq::Context::new().socket(zmq::DEALER).expect("a socket");
        socket.set_linger(0).expect("an option of libzmq");
        socket.connect(endpoint).unwrap_or_else(|error| panic!("{endpoint}: {error}"));
        Self { socket, frames: Vec::new(), read: 0 }
    }

    /// Connects, says HELLO and waits for WELCOME.
    pub fn welcomed(endpoint: &str, role: Role, peer: u8) -> (Self, Welcome) {
        let mut socket = Self::connect(endpoint);
        socket.send(&[hello(role, peer)]);
        let welcome = socket.welcome();
        (socket, welcome)
    }

    /// Sends one message of these frames.
    ///
    /// # Panics
    /// libzmq refuses.
    pub fn send_frames(&self, frames: &[&[u8]]) {
        self.socket.send_multipart(frames, 0).expect("a socket in good order");
    }

    /// Sends commands, as one message.
    pub fn send(&self, commands: &[ToBroker<'_>]) {
        let mut bytes = Vec::new();
        commands.iter().for_each(|command| write_to_broker(&mut bytes, command));
        self.send_frames(&[&bytes]);
    }

    /// Reads on until `look` finds what it wants; it is given each command and the frames after the
    /// first one of its message.
    ///
    /// # Panics
    /// It finds nothing within [`LIMIT`], or the broker sends what cannot be read.
    #[track_caller]
    pub fn expect<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&FromBroker<'_>, &[Vec<u8>]) -> Option<T>,
    ) -> T {
        let until = Instant::now() + LIMIT;
        let mut seen: Vec<String> = Vec::new();
        loop {
            if let Some((first, rest)) = self.frames.split_first() {
                let lens: Vec<usize> = rest.iter().map(Vec::len).collect();
                let mut reader = BatchReader::new(first, &lens);
                let mut index = 0;
                while let Some(command) = reader.next_from_broker() {
                    let command = command.expect("the broker speaks the protocol");
                    index += 1;
                    if index <= self.read {
                        continue;
                    }
                    self.read = index;
                    if let Some(found) = look(&command, rest) {
                        return found;
                    }
                    seen.push(format!("{command:?}").chars().take(300).collect());
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what}, but {seen:?}");
            let timeout = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            self.socket.set_rcvtimeo(timeout).expect("an option of libzmq");
            match self.socket.recv_multipart(0) {
                Ok(frames) => (self.frames, self.read) = (frames, 0),
                Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => {}
                Err(error) => panic!("the socket failed: {error}"),
            }
        }
    }

    /// Waits for WELCOME.
    #[track_caller]
    pub fn welcome(&mut self) -> Welcome {
        self.expect("WELCOME", |command, _| match command {
            FromBroker::Welcome(welcome) => Some(*welcome),
            _ => None,
        })
    }

    /// Waits for REFUSED; its code and reason.
    #[track_caller]
    pub fn refused(&mut self) -> (RefusedCode, String) {
        self.expect("REFUSED", |command, _| match command {
            FromBroker::Refused(refused) => Some((refused.code, refused.reason.to_owned())),
            _ => None,
        })
    }

    /// Waits for NO_SESSION.
    #[track_caller]
    pub fn no_session(&mut self) {
        self.expect("NO_SESSION", |command, _| {
            matches!(command, FromBroker::NoSession).then_some(())
        });
    }

    /// Sends a HEARTBEAT and waits for its echo: the session is open, and everything sent before has
    /// been read.
    #[track_caller]
    pub fn echo(&mut self, sequence: u64) {
        use pinmesh_protocol::command::Heartbeat;
        self.send(&[ToBroker::Heartbeat(Heartbeat { sequence, silence_ns: None })]);
        self.expect("echo", |command, _| match command {
            FromBroker::Heartbeat(echo) if echo.sequence == sequence => Some(()),
            _ => None,
        });
    }
}

//! Peers that send what they should not: each is told so, the broker lives, others notice nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_protocol::codec::write_to_broker;
use pinmesh_protocol::command::{
    Done, FrameSpan, FromBroker, Hello, Payload, ServiceRef, Submit, ToBroker, op,
};
use pinmesh_protocol::id::{
    AttemptId, ContentType, Dispatch, Epoch, PeerId, Priority, RequestId, Submission, TaskId,
};
use pinmesh_protocol::limits;
use pinmesh_protocol::status::{EndStatus, RefusedCode, Role, Status};
use pinmesh_tests::{Load, Mesh, RawPeer, hello, payload_of, ready, submit, turn};

fn bytes_of(command: &ToBroker<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_to_broker(&mut bytes, command);
    bytes
}

fn done(attempt: AttemptId) -> ToBroker<'static> {
    ToBroker::Done(Done {
        attempt,
        status: EndStatus::Ok,
        residence_ns: 1,
        service_ns: 1,
        content_type: ContentType::RAW,
        payload: Payload::Inline(b"forged"),
    })
}

fn frames(bytes: u64, frames: u32) -> Payload<'static> {
    Payload::Frames(FrameSpan { first: 1, frames, bytes })
}

/// A mesh, a load on it, and what must hold in the end.
struct Scene {
    mesh: Mesh,
    load: Load,
    /// The next peer's id; that of each session must be its own.
    peer: u8,
}

impl Scene {
    fn start() -> Self {
        let mesh = Mesh::start(1, &[]);
        let load = Load::start(mesh.client(), 100);
        Self { mesh, load, peer: 0 }
    }

    fn welcomed(&mut self, role: Role) -> RawPeer {
        self.peer += 1;
        let endpoint = match role {
            Role::Client => &self.mesh.broker.frontend,
            Role::Worker | Role::Supervisor => &self.mesh.broker.backend,
        };
        RawPeer::welcomed(endpoint, role, self.peer).0
    }

    /// Sends one message in a session of its own; it must be refused with this code, and the session
    /// must be closed.
    #[track_caller]
    fn refuses(&mut self, what: &str, role: Role, message: &[&[u8]], wanted: RefusedCode) {
        let mut peer = self.welcomed(role);
        peer.send_frames(message);
        let (code, reason) = peer.refused();
        assert_eq!(code, wanted, "{what}: {reason}");
        assert!(!reason.is_empty(), "{what}: nobody learns why");
        peer.send(&[submit(1, "echo", Payload::Inline(b"x"))]);
        peer.no_session();
    }

    /// Everyone else was served all the time.
    #[track_caller]
    fn ends_well(self) {
        self.load.progress(100);
        let report = self.load.finish();
        report.assert_all_ok();
        let ledger = self.mesh.broker.drain();
        assert!(ledger.count("ok") >= report.submitted, "{ledger:?}");
    }
}

#[test]
fn bytes_that_are_no_commands_are_refused_as_malformed() {
    let _turn = turn();
    let mut scene = Scene::start();
    for (what, bytes) in [
        ("a reserved marker", &[0xc1][..]),
        ("an integer", &[7]),
        ("an empty array", &[0x90]),
        ("an op that is a string", &[0x91, 0xa1, b'x']),
        ("a negative op", &[0x91, 0xff]),
        ("an array of four billion", &[0xdd, 0xff, 0xff, 0xff, 0xff, op::SUBMIT]),
        ("a map", &[0x81, 0x01, 0x02]),
        ("text", b"GET / HTTP/1.1\r\n\r\n"),
    ] {
        scene.refuses(what, Role::Client, &[bytes], RefusedCode::Malformed);
        scene.refuses(what, Role::Worker, &[bytes], RefusedCode::Malformed);
    }
    scene.ends_well();
}

#[test]
fn a_command_that_is_cut_off_anywhere_is_refused_as_malformed() {
    let _turn = turn();
    let mut scene = Scene::start();
    let whole = bytes_of(&submit(1, "echo", Payload::Inline(b"0123456789")));
    for end in 1..whole.len() {
        let what = format!("the first {end} of {} bytes", whole.len());
        scene.refuses(&what, Role::Client, &[&whole[..end]], RefusedCode::Malformed);
    }
    scene.ends_well();
}

#[test]
fn fields_out_of_their_range_are_refused_as_malformed() {
    let _turn = turn();
    let mut scene = Scene::start();
    let whole = bytes_of(&submit(1, "echo", Payload::Inline(b"x")));
    // [op, request, submission, service (a str of 4), priority, ...]
    let at = whole.windows(5).position(|part| part == b"\xa4echo").unwrap() + 5;
    assert_eq!(whole[at], Priority::default().value());
    for priority in [0, 11, 0xc0] {
        let mut wrong = whole.clone();
        wrong[at] = priority;
        scene.refuses("a priority", Role::Client, &[&wrong], RefusedCode::Malformed);
    }
    let alias = ToBroker::Submit(Submit {
        request_id: RequestId(1),
        submission: Submission(1),
        service: ServiceRef::Alias(3),
        priority: Priority::default(),
        deadline_ns: None,
        content_type: ContentType::RAW,
        options: None,
        payload: Payload::Inline(b"x"),
    });
    let alias = bytes_of(&alias);
    scene.refuses("an alias that nobody set", Role::Client, &[&alias], RefusedCode::Malformed);
    scene.ends_well();
}

#[test]
fn commands_of_the_other_side_and_unknown_ones_are_refused_by_their_names() {
    let _turn = turn();
    let mut scene = Scene::start();
    let submit = bytes_of(&submit(1, "echo", Payload::Inline(b"x")));
    let done = bytes_of(&done(AttemptId::default()));
    let ready = bytes_of(&ready("echo"));
    for (what, role, bytes, code) in [
        ("an op of the future", Role::Client, &[0x91, 99][..], RefusedCode::UnknownOp),
        ("an op of the future", Role::Worker, &[0x91, 99], RefusedCode::UnknownOp),
        ("WELCOME to a broker", Role::Client, &[0x91, op::WELCOME], RefusedCode::NotAllowed),
        ("TASK to a broker", Role::Worker, &[0x91, op::TASK], RefusedCode::NotAllowed),
        ("SUBMIT of a worker", Role::Worker, &submit, RefusedCode::NotAllowed),
        ("SUBMIT of a supervisor", Role::Supervisor, &submit, RefusedCode::NotAllowed),
        ("DONE of a client", Role::Client, &done, RefusedCode::NotAllowed),
        ("READY of a client", Role::Client, &ready, RefusedCode::NotAllowed),
        ("READY of a supervisor", Role::Supervisor, &ready, RefusedCode::NotAllowed),
    ] {
        scene.refuses(what, role, &[bytes], code);
    }
    // One that may be ignored is, and what follows it counts.
    let mut peer = scene.welcomed(Role::Client);
    peer.send_frames(&[&[0x93, 0xcc, 200, 1, 0xc0]]);
    peer.echo(7);
    scene.ends_well();
}

#[test]
fn what_is_too_long_too_many_or_too_deep_is_refused_as_too_large() {
    let _turn = turn();
    let mut scene = Scene::start();
    let code = RefusedCode::TooLarge;
    let long = bytes_of(&submit(1, "echo", Payload::Inline(&vec![0; 300 << 10])));
    scene.refuses("a first frame of 300 KiB", Role::Client, &[&long], code);

    let many = bytes_of(&submit(1, "echo", frames(100, 100)));
    let mut message: Vec<&[u8]> = vec![&many];
    message.extend([&b"x"[..]; 100]);
    scene.refuses("a hundred frames", Role::Client, &message, code);

    // A surplus field, which would be ignored, of 200,000 arrays inside each other.
    let mut deep = bytes_of(&ToBroker::Goodbye);
    assert_eq!(deep, [0x91, op::GOODBYE]);
    deep[0] = 0x92;
    deep.resize(200_000, 0x91);
    deep.push(0xc0);
    scene.refuses("arrays 200,000 deep", Role::Client, &[&deep], code);
    scene.refuses("arrays 200,000 deep", Role::Worker, &[&deep], code);

    let name = "n".repeat(limits::SERVICE_BYTES_MAX + 1);
    let named = bytes_of(&submit(1, &name, Payload::Inline(b"x")));
    scene.refuses("a service of 129 bytes", Role::Client, &[&named], code);
    scene.ends_well();
}

#[test]
fn frames_that_do_not_fit_what_the_command_says_are_refused_as_wrong_frames() {
    let _turn = turn();
    let mut scene = Scene::start();
    // A SUBMIT would be taken before the frame after it is seen to be nobody's.
    let none = bytes_of(&ToBroker::Ack(0));
    let one = bytes_of(&submit(1, "echo", frames(3, 1)));
    let two = bytes_of(&submit(1, "echo", frames(6, 2)));
    let absurd = bytes_of(&submit(1, "echo", frames(u64::MAX, u32::MAX)));
    for (what, message) in [
        ("a frame that nobody named", &[&none[..], b"abc"][..]),
        ("no frame where one is named", &[&one]),
        ("a frame of another length", &[&one, b"abcd"]),
        ("two frames where one is named", &[&one, b"abc", b"def"]),
        ("one frame where two are named", &[&two, b"abcdef"]),
        ("sizes that overflow", &[&absurd, b"abc"]),
    ] {
        scene.refuses(what, Role::Client, message, RefusedCode::WrongFrames);
    }
    scene.ends_well();
}

#[test]
fn a_frame_over_libzmqs_limit_costs_its_sender_the_connection_and_nobody_else_anything() {
    let _turn = turn();
    let mut scene = Scene::start();
    let peer = scene.welcomed(Role::Client);
    let submit = bytes_of(&submit(1, "echo", frames(8 << 20, 1)));
    peer.send_frames(&[&submit, &vec![0; 8 << 20]]);
    // The broker never sees it; the one who sent it can come again as someone new.
    let mut again = scene.welcomed(Role::Client);
    again.echo(1);
    drop(peer);
    scene.ends_well();
}

#[test]
fn a_peer_that_has_not_said_hello_has_no_session() {
    let _turn = turn();
    let scene = Scene::start();
    let mut client = RawPeer::connect(&scene.mesh.broker.frontend);
    client.send(&[submit(1, "echo", Payload::Inline(b"x"))]);
    client.no_session();
    let mut worker = RawPeer::connect(&scene.mesh.broker.backend);
    worker.send(&[done(AttemptId::default())]);
    worker.no_session();
    scene.ends_well();
}

#[test]
fn a_hello_that_the_broker_cannot_answer_is_refused_with_the_reason() {
    let _turn = turn();
    let mut scene = Scene::start();
    let (frontend, backend) =
        (scene.mesh.broker.frontend.clone(), scene.mesh.broker.backend.clone());
    let future = ToBroker::Hello(Hello {
        version_min: 5,
        version_max: 9,
        role: Role::Client,
        peer_id: PeerId([200; 16]),
        name: "future@tests",
        nonce: 1,
        features: 0,
    });
    for (what, endpoint, command, wanted) in [
        ("versions 5 to 9", &frontend, future, RefusedCode::Version),
        ("a worker", &frontend, hello(Role::Worker, 201), RefusedCode::NotAllowed),
        ("a supervisor", &frontend, hello(Role::Supervisor, 202), RefusedCode::NotAllowed),
        ("a client", &backend, hello(Role::Client, 203), RefusedCode::NotAllowed),
    ] {
        let mut peer = RawPeer::connect(endpoint);
        peer.send(&[command]);
        let (code, reason) = peer.refused();
        assert_eq!(code, wanted, "{what}: {reason}");
    }
    let mut peer = scene.welcomed(Role::Client);
    peer.echo(1);
    scene.ends_well();
}

#[test]
fn a_second_hello_on_a_socket_is_refused_and_an_id_has_one_session_at_a_time() {
    let _turn = turn();
    let scene = Scene::start();
    let endpoint = &scene.mesh.broker.frontend;
    let (mut twice, _) = RawPeer::welcomed(endpoint, Role::Client, 210);
    twice.send(&[hello(Role::Client, 210)]);
    assert_eq!(twice.refused().0, RefusedCode::Malformed);
    let (mut first, _) = RawPeer::welcomed(endpoint, Role::Client, 210);
    first.echo(1);
    // Another socket with the same id takes its place.
    let (mut second, _) = RawPeer::welcomed(endpoint, Role::Client, 210);
    second.echo(2);
    first.send(&[submit(1, "echo", Payload::Inline(b"x"))]);
    first.no_session();
    scene.ends_well();
}

#[test]
fn ends_of_tasks_that_a_worker_does_not_hold_end_nothing() {
    let _turn = turn();
    let mut scene = Scene::start();
    // A task of somebody else's that is certainly in flight: nobody but this peer serves it.
    let (mut owner, welcome) = RawPeer::welcomed(&scene.mesh.broker.backend, Role::Worker, 220);
    owner.send(&[ready("rare")]);
    let client = scene.mesh.client();
    let handle = client.submit_raw("rare", b"mine".to_vec()).unwrap();
    let attempt = owner.expect("TASK", |command, _| match command {
        FromBroker::Task(task) => {
            Some(AttemptId { epoch: welcome.epoch, task: task.task, dispatch: task.dispatch })
        }
        _ => None,
    });

    let mut thief = scene.welcomed(Role::Worker);
    thief.send(&[ready("another")]);
    let before = scene.mesh.broker.ledger();
    let forged = [
        attempt,
        AttemptId { dispatch: Dispatch(2), ..attempt },
        AttemptId { epoch: Epoch(!welcome.epoch.0), ..attempt },
        AttemptId { task: TaskId(u64::MAX), ..attempt },
        AttemptId::default(),
    ];
    thief.send(&forged.map(done));
    thief.echo(1);
    let after = scene.mesh.broker.ledger();
    let dropped =
        |ledger: &pinmesh_tests::Ledger| ledger.count("stale_ends") + ledger.count("foreign_ends");
    assert_eq!(dropped(&after) - dropped(&before), forged.len() as u64, "{after:?}");
    assert!(!handle.is_done(), "a forged end ended somebody's task");

    owner.send(&[done(attempt)]);
    assert_eq!(*handle.wait().unwrap(), *b"forged");
    // Again, and late: acknowledged and dropped.
    owner.send(&[done(attempt)]);
    owner.echo(2);
    scene.ends_well();
}

#[test]
fn options_that_cannot_be_read_end_their_task_and_not_the_session() {
    let _turn = turn();
    let mut scene = Scene::start();
    let mut peer = scene.welcomed(Role::Client);
    // {"nice": 1}, {"tries_max": 0}, {"a": [nil]}
    let wrong: [&[u8]; 3] = [b"\x81\xa4nice\x01", b"\x81\xa9tries_max\x00", b"\x81\xa1a\x91\xc0"];
    for (number, options) in wrong.into_iter().enumerate() {
        let command = ToBroker::Submit(Submit {
            request_id: RequestId(number as u64),
            submission: Submission(1),
            service: ServiceRef::Name("echo"),
            priority: Priority::default(),
            deadline_ns: None,
            content_type: ContentType::RAW,
            options: Some(options),
            payload: Payload::Inline(b"x"),
        });
        peer.send(&[command]);
        let text = peer.expect("RESULT", |command, frames| match command {
            FromBroker::Result(result) if result.request_id.0 == number as u64 => {
                assert_eq!(result.status, Status::Refused);
                Some(String::from_utf8(payload_of(&result.payload, frames)).unwrap())
            }
            _ => None,
        });
        assert!(text.contains("options"), "{text}");
    }
    peer.echo(9);
    scene.ends_well();
}

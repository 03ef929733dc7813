//! What handlers say while they run.

use pinmesh_protocol::status::ProgressKind::{self, Latest, Stream};

use super::*;
use crate::handler::UpdateError;

fn update(heard: Heard) -> (u64, ProgressKind, Vec<u8>) {
    match heard {
        Heard::Progress { sequence, kind, payload } => (sequence, kind, payload),
        other => panic!("not a PROGRESS: {other:?}"),
    }
}

#[test]
fn updates_go_out_before_the_end_numbered_and_encoded_as_the_task_is() {
    let service = Worker::new().service("steps", |context: &Context<'_>, steps: u32| {
        context.progress(&0)?;
        (1..=steps).try_for_each(|step| context.emit(&step))?;
        Ok::<_, UpdateError>(steps)
    });
    let (mut broker, _worker) = embedded(service);
    broker.content_type = ContentType::JSON;
    broker.tasks(&[(1, "steps", b"2"), (2, "steps", b"1")]);
    assert_eq!(update(broker.hear()), (1, Latest, b"0".to_vec()));
    assert_eq!(update(broker.hear()), (2, Stream, b"1".to_vec()));
    assert_eq!(update(broker.hear()), (3, Stream, b"2".to_vec()));
    assert_eq!(done(broker.hear()), (1, EndStatus::Ok, b"2".to_vec()));
    assert_eq!(update(broker.hear()).0, 1, "each attempt counts for itself");
    assert_eq!(update(broker.hear()), (2, Stream, b"1".to_vec()));
    assert_eq!(done(broker.hear()), (2, EndStatus::Ok, b"1".to_vec()));
    broker.ack(5);
}

/// Emits its input twice.
fn twice() -> Worker {
    Worker::new().raw_service("twice", |context, input, _| {
        context.emit_raw(ContentType::RAW, &input.bytes())?;
        context.emit_raw(ContentType::RAW, &input.bytes())
    })
}

#[test]
fn a_handler_that_waits_for_an_ack_lets_the_session_go_on_and_loses_nothing() {
    let (mut broker, _worker) = embedded(twice());
    let long: Vec<u8> = (0..5 << 20).map(|n: u32| (n / 9) as u8).collect();
    broker.long_task(1, "twice", &long);
    let (sequence, kind, payload) = update(broker.hear());
    assert_eq!((sequence, kind), (1, Stream));
    assert!(payload == long, "the bytes are changed");
    // Both together are more than a worker may have unacknowledged.
    broker.no_session();
    broker.welcome();
    assert_eq!(broker.held, [attempt(1)]);
    assert_eq!(update(broker.hear()).0, 1, "again");
    broker.ack(1);
    assert_eq!(update(broker.hear()).0, 2);
    assert_eq!(done(broker.hear()).1, EndStatus::Ok);
}

#[test]
fn a_worker_that_is_stopped_does_not_wait_for_ever_in_a_handler() {
    let (mut broker, worker) = embedded(twice());
    let long = vec![1; 5 << 20];
    broker.long_task(1, "twice", &long);
    assert_eq!(update(broker.hear()).0, 1);
    let stopping = std::thread::spawn(move || worker.stop());
    assert_eq!(broker.hear(), Heard::Window(0));
    let (_, status, text) = done(broker.hear());
    assert_eq!((status, &text[..]), (EndStatus::Failed, &b"the handler is asked to stop"[..]));
    broker.ack(2);
    assert_eq!(broker.hear(), Heard::Goodbye);
    stopping.join().unwrap().unwrap();
}

#[test]
fn an_update_longer_than_the_broker_takes_is_the_handlers_error() {
    let (mut broker, _worker) = embedded(Worker::new().raw_service("big", |context, _, _| {
        context.progress_raw(ContentType::RAW, &vec![0; fake::PAYLOAD_BYTES_MAX as usize + 1])
    }));
    broker.tasks(&[(1, "big", b"")]);
    let (_, status, text) = done(broker.hear());
    assert_eq!(status, EndStatus::Failed);
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("the update has 8388609 bytes"), "{text}");
}

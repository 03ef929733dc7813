//! Every command once more, as tuples that rmp-serde reads and writes: what the cursor is held to.

use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::*;
use pinmesh_protocol::id::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

pub mod decode;
pub mod encode;

type Id = ByteArray<16>;
type Attempt = (u32, u64, u32);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Service {
    Alias(u32),
    Name(String),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Body {
    Frames(u32, u32, u64),
    Inline(ByteBuf),
}

type HelloWire = (u8, u32, u32, u8, Id, String, u64, u64);
type WelcomeWire = (u8, u32, u64, u32, u64, u64, u32, u32, u64, u64, u32, u64);
type SubmitWire = (u8, u64, u32, Service, u8, Option<u64>, u32, Option<TaskOptions>, Body);
type ResultWire = (u8, u64, u32, u8, u32, Option<[u64; 4]>, u32, Body, Option<u64>);
#[rustfmt::skip]
type TaskWire = (u8, u64, u32, Id, u64, u32, Service, u32, Option<u64>, u64, u32, Option<TaskOptions>, Body);
type DoneWire = (u8, u32, u64, u32, u8, u64, u64, u32, Body);
type HeldWire = (u32, u64, u32, Id, u64, u32, u8);
type ReadyWire =
    (u8, Option<Id>, u16, u32, Vec<String>, Vec<String>, u32, u64, Vec<HeldWire>, u32, u32);
type WorkerProgressWire = (u8, u32, u64, u32, u64, u8, u32, Body);
type ClientProgressWire = (u8, u64, u32, u64, u32, u64, u8, u32, Body);
type HostWire = (u8, Vec<u16>, Vec<(u16, u32, Option<u16>, Vec<Attempt>)>);
type LostWire = (u8, u16, u32, u8, i32, Option<Attempt>, Vec<Attempt>);
type AttemptsWire = (u8, u16, Vec<Attempt>);
type CancelWire = (u8, u16, u32, u64, u32, bool);

fn pack<T: Serialize>(value: T) -> Vec<u8> {
    rmp_serde::to_vec_named(&value).unwrap()
}

fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> T {
    rmp_serde::from_slice(bytes).unwrap()
}

fn id(id: PeerId) -> Id {
    Id::new(id.0)
}

fn peer(id: Id) -> PeerId {
    PeerId(id.into_array())
}

fn attempt(a: &AttemptId) -> Attempt {
    (a.epoch.0, a.task.0, a.dispatch.0)
}

fn attempt_id((epoch, task, dispatch): Attempt) -> AttemptId {
    AttemptId { epoch: Epoch(epoch), task: TaskId(task), dispatch: Dispatch(dispatch) }
}

fn attempt_ids(attempts: Vec<Attempt>) -> Vec<AttemptId> {
    attempts.into_iter().map(attempt_id).collect()
}

fn service(service: ServiceRef<'_>) -> Service {
    match service {
        ServiceRef::Alias(alias) => Service::Alias(alias),
        ServiceRef::Name(name) => Service::Name(name.into()),
    }
}

fn service_ref(service: Service) -> ServiceRef<'static> {
    match service {
        Service::Alias(alias) => ServiceRef::Alias(alias),
        Service::Name(name) => ServiceRef::Name(name.leak()),
    }
}

fn body(payload: Payload<'_>) -> Body {
    match payload {
        Payload::Inline(bytes) => Body::Inline(ByteBuf::from(bytes)),
        Payload::Frames(span) => Body::Frames(span.first, span.frames, span.bytes),
    }
}

fn payload(body: Body) -> Payload<'static> {
    match body {
        Body::Inline(bytes) => Payload::Inline(Vec::leak(bytes.into_vec())),
        Body::Frames(first, frames, bytes) => Payload::Frames(FrameSpan { first, frames, bytes }),
    }
}

fn options(options: Option<&[u8]>) -> Option<TaskOptions> {
    options.map(|bytes| TaskOptions::decode(bytes).unwrap())
}

fn option_bytes(options: Option<TaskOptions>) -> Option<&'static [u8]> {
    options.map(|options| &*Vec::leak(options.encode()))
}

fn known<T>(value: u8, from_wire: impl Fn(u64) -> Option<T>) -> T {
    from_wire(value.into()).unwrap()
}

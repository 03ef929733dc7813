//! Dead letters: listed, shown, run again, thrown away.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use pinmesh_core::{AdminCommand, AdminObjection, AdminReply, DeadPage, DeadReason, LetterId};
use serde::Deserialize;
use serde_json::json;

use super::admin::{Named, Parameters, parameters_of, path_of};
use super::answer::{Answer, Failure};
use super::json;
use crate::admin_queue::Asker;

/// Letters that one answer covers. Each may have 4 KiB of a handler's words.
const LIST_PAGE: u32 = 256;
/// Letters that are run again or thrown away in one turn of the loop.
const WALK_PAGE: u32 = 256;
/// Bytes of a payload that one answer has: a copy of more would hold up the loop.
const PAYLOAD_PAGE: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    service: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    from: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    #[serde(default)]
    from: u64,
}

/// Which letters; at least one word of it must be there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    service: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    all: bool,
}

#[derive(Clone, Copy)]
enum Walk {
    Replay,
    Purge,
}

/// What a walk did.
#[derive(Default)]
struct Done {
    count: u64,
    busy: u64,
}

pub(super) async fn list(State(asker): State<Asker>, parameters: Parameters<Listed>) -> Answer {
    let Listed { service, reason, from } = parameters_of(parameters)?;
    let reason = reason_of(reason.as_deref())?;
    let (page, next) = asker
        .ask(move |desk| {
            let (service, from) = (service.as_deref(), LetterId(from));
            let page = DeadPage { service, reason, from, upto: None, visits: LIST_PAGE };
            desk.broker.letters_page(page)
        })
        .await?;
    Ok(Json(json!({
        "letters": page.iter().map(json::letter).collect::<Vec<_>>(),
        "next_from": next.map(|next| next.0),
    })))
}

pub(super) async fn show(State(asker): State<Asker>, letter: Named<String>) -> Answer {
    let (text, letter) = letter_of(letter)?;
    let view = asker.ask(move |desk| desk.broker.letter(letter).map(|(view, _)| view)).await?;
    view.map(|view| Json(json::letter(&view))).ok_or_else(|| unknown(&text))
}

pub(super) async fn payload(
    State(asker): State<Asker>,
    letter: Named<String>,
    parameters: Parameters<Part>,
) -> Result<Response, Failure> {
    let (text, letter) = letter_of(letter)?;
    let Part { from } = parameters_of(parameters)?;
    let part = asker
        .ask(move |desk| Some(desk.broker.letter(letter)?.1.copy(from, PAYLOAD_PAGE)))
        .await?
        .ok_or_else(|| unknown(&text))?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, Bytes::from(part)).into_response())
}

pub(super) async fn replay_one(State(asker): State<Asker>, letter: Named<String>) -> Answer {
    let (text, letter) = letter_of(letter)?;
    match one(asker, letter, Walk::Replay).await? {
        Done { count: 0, busy: 0 } => Err(unknown(&text)),
        Done { count: 0, .. } => {
            let error = format!("there is no room for the task of dead letter {text}");
            let remedy = "it stays; try again when its service has fewer tasks waiting, and \
                          another broker if this one drains";
            Err(Failure::new(StatusCode::CONFLICT, error, remedy))
        }
        Done { .. } => Ok(Json(json!({ "letter": letter.0, "replayed": 1 }))),
    }
}

pub(super) async fn purge_one(State(asker): State<Asker>, letter: Named<String>) -> Answer {
    let (text, letter) = letter_of(letter)?;
    match one(asker, letter, Walk::Purge).await? {
        Done { count: 0, .. } => Err(unknown(&text)),
        Done { .. } => Ok(Json(json!({ "letter": letter.0, "purged": 1 }))),
    }
}

pub(super) async fn replay(State(asker): State<Asker>, parameters: Parameters<Which>) -> Answer {
    let done = walk(asker, parameters_of(parameters)?, Walk::Replay).await?;
    Ok(Json(json!({ "replayed": done.count, "no_room": done.busy })))
}

pub(super) async fn purge(State(asker): State<Asker>, parameters: Parameters<Which>) -> Answer {
    let done = walk(asker, parameters_of(parameters)?, Walk::Purge).await?;
    Ok(Json(json!({ "purged": done.count })))
}

async fn one(asker: Asker, letter: LetterId, walk: Walk) -> Result<Done, Failure> {
    let reply = asker.ask(move |desk| desk.administer(command(walk, DeadPage::of(letter)))).await?;
    let mut done = Done::default();
    note(&mut done, reply, &letter.0.to_string())?;
    tell(walk, &done);
    Ok(done)
}

async fn walk(asker: Asker, which: Which, walk: Walk) -> Result<Done, Failure> {
    let Which { service, reason, all } = which;
    if all == (service.is_some() || reason.is_some()) {
        let error = "which dead letters?";
        let remedy = "say ?service=NAME, ?reason=REASON or both, or ?all=true";
        return Err(Failure::unreadable(error, remedy));
    }
    let reason = reason_of(reason.as_deref())?;
    let (mut done, mut from, mut upto) = (Done::default(), LetterId(0), None);
    loop {
        let service = service.clone();
        let reply = asker
            .ask(move |desk| {
                let service = service.as_deref();
                let page = DeadPage { service, reason, from, upto, visits: WALK_PAGE };
                desk.administer(command(walk, page))
            })
            .await?;
        let (by, next) = note(&mut done, reply, "dead letters")?;
        upto = Some(by);
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    tell(walk, &done);
    Ok(done)
}

fn command(walk: Walk, page: DeadPage<'_>) -> AdminCommand<'_> {
    match walk {
        Walk::Replay => AdminCommand::Replay(page),
        Walk::Purge => AdminCommand::PurgeDead(page),
    }
}

/// Adds a page to what was done. Up to where the walk goes, and where its next page begins.
fn note(
    done: &mut Done,
    reply: Result<AdminReply, AdminObjection>,
    whom: &str,
) -> Result<(LetterId, Option<LetterId>), Failure> {
    match reply.map_err(|objection| Failure::objection(objection, whom))? {
        AdminReply::Replayed { count, busy, upto, next } => {
            done.count += count;
            done.busy += busy;
            Ok((upto, next))
        }
        AdminReply::DeadPurged { count, upto, next } => {
            done.count += count;
            Ok((upto, next))
        }
        _ => Ok((LetterId(0), None)),
    }
}

fn tell(walk: Walk, done: &Done) {
    let Done { count, busy } = done;
    match walk {
        Walk::Replay => tracing::info!(count, busy, "dead letters replayed by an operator"),
        Walk::Purge => tracing::info!(count, "dead letters purged by an operator"),
    }
}

fn reason_of(text: Option<&str>) -> Result<Option<DeadReason>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let reason = DeadReason::ALL.into_iter().find(|reason| reason.name() == text);
    reason.map(Some).ok_or_else(|| {
        let names = DeadReason::ALL.map(DeadReason::name).join(", ");
        let error = format!("{text:?} is no reason of a death");
        Failure::unreadable(error, &format!("it is one of {names}"))
    })
}

fn letter_of(path: Named<String>) -> Result<(String, LetterId), Failure> {
    let text = path_of(path)?;
    let number = text.parse().map(LetterId).map_err(|_| {
        let error = format!("{text:?} is no number of a dead letter");
        Failure::unreadable(error, "it is a whole number, as GET /v1/dead shows it")
    })?;
    Ok((text, number))
}

fn unknown(letter: &str) -> Failure {
    let error = format!("no dead letter {letter} is kept");
    let remedy = "GET /v1/dead (`pinmesh dead list`) lists those that are; one may have been \
                  replayed, purged, or have left at a bound of [dead]";
    Failure::new(StatusCode::NOT_FOUND, error, remedy)
}

//! The admin API, version 1: what is where, why, and an operator's commands. docs/admin.md tells of
//! each with an example.

use std::fmt::Write as _;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use pinmesh_core::{AdminCommand, AdminReply, DrainTarget, Purge, Time};
use pinmesh_protocol::id::{PeerId, Slot, TaskId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Failure};
use super::guard::{Transport, guard};
use super::{dead, json};
use crate::admin_queue::Asker;

/// Services of one answer. Each may have waiting tasks of thousands of clients, among which the
/// oldest is sought.
const SERVICES_PAGE: usize = 64;
/// Places of the store of workers, hosts or clients that one answer covers. A worker may name 256
/// services.
const PEERS_PAGE: u32 = 64;
/// Places of the store of tasks that one answer covers.
const TASKS_PAGE: u32 = 1_024;
/// Places of the store of tasks that a purge covers in one turn of the loop: half a millisecond.
const PURGE_PAGE: u32 = 1_024;

pub(super) type Parameters<T> = Result<Query<T>, QueryRejection>;
pub(super) type Named<T> = Result<Path<T>, PathRejection>;

pub(super) fn router(asker: Asker, transport: Transport) -> Router {
    Router::new()
        .route("/v1/services", get(services))
        .route("/v1/services/{service}", get(service))
        .route("/v1/services/{service}/pause", post(pause))
        .route("/v1/services/{service}/resume", post(resume))
        .route("/v1/services/{service}/purge", post(purge))
        .route("/v1/workers", get(workers))
        .route("/v1/workers/{id}/drain", post(drain_peer))
        .route("/v1/hosts", get(hosts))
        .route("/v1/hosts/{id}/drain", post(drain_peer))
        .route("/v1/hosts/{id}/workers/{slot}/drain", post(drain_slot))
        .route("/v1/clients", get(clients))
        .route("/v1/tasks", get(tasks))
        .route("/v1/tasks/{task}", get(explain))
        .route("/v1/tasks/{task}/cancel", post(cancel))
        .route("/v1/dead", get(dead::list))
        .route("/v1/dead/replay", post(dead::replay))
        .route("/v1/dead/purge", post(dead::purge))
        .route("/v1/dead/{letter}", get(dead::show))
        .route("/v1/dead/{letter}/payload", get(dead::payload))
        .route("/v1/dead/{letter}/replay", post(dead::replay_one))
        .route("/v1/dead/{letter}/purge", post(dead::purge_one))
        .route("/v1/ledger", get(ledger))
        .route("/v1/drain", post(drain))
        .fallback(nothing_there)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn_with_state(transport, guard))
        .with_state(asker)
}

/// Where a page begins.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    after: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    #[serde(default)]
    from: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfService {
    service: Option<String>,
    #[serde(default)]
    from: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct How {
    #[serde(default)]
    hard: bool,
}

async fn services(State(asker): State<Asker>, parameters: Parameters<After>) -> Answer {
    let After { after } = parameters_of(parameters)?;
    let page = asker
        .ask(move |desk| desk.broker.services_page(after.as_deref(), SERVICES_PAGE + 1))
        .await?;
    let has_more = page.len() > SERVICES_PAGE;
    let shown = &page[..page.len().min(SERVICES_PAGE)];
    let next = shown.last().filter(|_| has_more).map(|view| view.name.clone());
    Ok(Json(json!({
        "services": shown.iter().map(json::service).collect::<Vec<_>>(),
        "next_after": next,
    })))
}

async fn service(State(asker): State<Asker>, name: Named<String>) -> Answer {
    let name = path_of(name)?;
    let asked = name.clone();
    let view = asker.ask(move |desk| desk.broker.service(&asked)).await?;
    let view = view.ok_or_else(|| Failure::unknown_service(&name))?;
    Ok(Json(json::service(&view)))
}

async fn pause(State(asker): State<Asker>, name: Named<String>) -> Answer {
    set_paused(asker, path_of(name)?, true).await
}

async fn resume(State(asker): State<Asker>, name: Named<String>) -> Answer {
    set_paused(asker, path_of(name)?, false).await
}

async fn set_paused(asker: Asker, name: String, is_paused: bool) -> Answer {
    let asked = name.clone();
    let reply = asker
        .ask(move |desk| {
            tracing::info!(service = asked, paused = is_paused, "told by an operator");
            desk.administer(match is_paused {
                true => AdminCommand::Pause(&asked),
                false => AdminCommand::Resume(&asked),
            })
        })
        .await?;
    let reply = reply.map_err(|objection| Failure::objection(objection, &name))?;
    let was_paused = matches!(
        reply,
        AdminReply::Paused { was_paused: true } | AdminReply::Resumed { was_paused: true }
    );
    Ok(Json(json!({ "service": name, "paused": is_paused, "was_paused": was_paused })))
}

async fn purge(State(asker): State<Asker>, name: Named<String>) -> Answer {
    let name = path_of(name)?;
    let (mut from, mut upto, mut purged): (u32, Option<Time>, u64) = (0, None, 0);
    loop {
        let asked = name.clone();
        let reply = asker
            .ask(move |desk| {
                let purge = Purge { service: &asked, upto, from, visits: PURGE_PAGE };
                desk.administer(AdminCommand::Purge(purge))
            })
            .await?;
        // A service whose last task this has ended may be forgotten before the next page.
        let reply = match reply {
            Err(pinmesh_core::AdminObjection::UnknownService) if from > 0 => break,
            reply => reply.map_err(|objection| Failure::objection(objection, &name))?,
        };
        let AdminReply::Purged { count, upto: by, next } = reply else { break };
        purged += count;
        upto = Some(by);
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    tracing::info!(service = name, purged, "purged by an operator");
    Ok(Json(json!({ "service": name, "purged": purged })))
}

async fn workers(State(asker): State<Asker>, parameters: Parameters<From>) -> Answer {
    let From { from } = parameters_of(parameters)?;
    let (page, next) = asker.ask(move |desk| desk.broker.workers_page(from, PEERS_PAGE)).await?;
    Ok(page_of("workers", page.iter().map(json::worker), next))
}

async fn hosts(State(asker): State<Asker>, parameters: Parameters<From>) -> Answer {
    let From { from } = parameters_of(parameters)?;
    let (page, next) = asker.ask(move |desk| desk.broker.hosts_page(from, PEERS_PAGE)).await?;
    Ok(page_of("hosts", page.iter().map(json::host), next))
}

async fn clients(State(asker): State<Asker>, parameters: Parameters<From>) -> Answer {
    let From { from } = parameters_of(parameters)?;
    let (page, next) = asker.ask(move |desk| desk.broker.clients_page(from, PEERS_PAGE)).await?;
    Ok(page_of("clients", page.iter().map(json::client), next))
}

async fn tasks(State(asker): State<Asker>, parameters: Parameters<OfService>) -> Answer {
    let OfService { service, from } = parameters_of(parameters)?;
    let (page, next) = asker
        .ask(move |desk| desk.broker.tasks_page(service.as_deref(), (from, TASKS_PAGE)))
        .await?;
    Ok(page_of("tasks", page.iter().map(json::task), next))
}

fn page_of(name: &str, page: impl Iterator<Item = Value>, next: Option<u32>) -> Json<Value> {
    Json(json!({ name: page.collect::<Vec<_>>(), "next_from": next }))
}

async fn explain(State(asker): State<Asker>, task: Named<String>) -> Answer {
    let text = path_of(task)?;
    let task = task_of(&text)?;
    let found = asker.ask(move |desk| desk.broker.explain(task)).await?;
    found
        .map(|explanation| Json(json::explanation(&explanation)))
        .ok_or_else(|| Failure::unknown_task(&text))
}

async fn cancel(
    State(asker): State<Asker>,
    task: Named<String>,
    parameters: Parameters<How>,
) -> Answer {
    let text = path_of(task)?;
    let task = task_of(&text)?;
    let How { hard: is_hard } = parameters_of(parameters)?;
    let reply = asker
        .ask(move |desk| {
            tracing::info!(task = task.0, hard = is_hard, "cancelled by an operator");
            desk.administer(AdminCommand::Cancel { task, is_hard })
        })
        .await?;
    let reply = reply.map_err(|objection| Failure::objection(objection, &text))?;
    let state = if reply == AdminReply::Cancelled { "cancelled" } else { "stopping" };
    Ok(Json(json!({ "task": text, "state": state })))
}

async fn ledger(State(asker): State<Asker>) -> Answer {
    let (ledger, counts) =
        asker.ask(|desk| (desk.broker.ledger().clone(), desk.broker.counts())).await?;
    Ok(Json(json::ledger(&ledger, &counts)))
}

async fn drain(State(asker): State<Asker>) -> Answer {
    asker.ask(|desk| desk.wants_drain = true).await?;
    Ok(Json(json!({ "broker": "draining" })))
}

async fn drain_peer(State(asker): State<Asker>, id: Named<String>) -> Answer {
    let text = path_of(id)?;
    let target = DrainTarget::Peer(peer_of(&text)?);
    ask_to_leave(asker, target, text).await
}

async fn drain_slot(State(asker): State<Asker>, place: Named<(String, u16)>) -> Answer {
    let (host, slot) = path_of(place)?;
    let target = DrainTarget::Slot(peer_of(&host)?, Slot(slot));
    let mut whom = host;
    let _ = write!(whom, "/{slot}");
    ask_to_leave(asker, target, whom).await
}

async fn ask_to_leave(asker: Asker, target: DrainTarget, whom: String) -> Answer {
    let reply = asker
        .ask(move |desk| {
            tracing::info!(?target, "asked to leave by an operator");
            desk.administer(AdminCommand::Drain(target))
        })
        .await?;
    reply.map_err(|objection| Failure::objection(objection, &whom))?;
    Ok(Json(json!({ "asked_to_leave": whom })))
}

async fn nothing_there(uri: axum::http::Uri) -> Failure {
    let remedy =
        "docs/admin.md lists what there is: /v1/services, /v1/workers, /v1/tasks/TASK, ...";
    Failure::new(StatusCode::NOT_FOUND, format!("nothing is at {}", uri.path()), remedy)
}

async fn other_method(method: axum::http::Method, uri: axum::http::Uri) -> Failure {
    let remedy = "GET shows, POST changes (`curl -X POST`)";
    let error = format!("{method} does not go with {}", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, error, remedy)
}

pub(super) fn parameters_of<T>(parameters: Parameters<T>) -> Result<T, Failure> {
    parameters.map(|Query(parameters)| parameters).map_err(|rejection| {
        Failure::unreadable(rejection.body_text(), "docs/admin.md names the parameters of each")
    })
}

pub(super) fn path_of<T>(path: Named<T>) -> Result<T, Failure> {
    path.map(|Path(path)| path).map_err(|rejection| {
        Failure::unreadable(rejection.body_text(), "docs/admin.md shows the path of each")
    })
}

fn task_of(text: &str) -> Result<TaskId, Failure> {
    text.parse().map(TaskId).map_err(|_| {
        let error = format!("{text:?} is no number of a task");
        Failure::unreadable(error, "it is a whole number, as GET /v1/tasks shows it")
    })
}

fn peer_of(text: &str) -> Result<PeerId, Failure> {
    let wrong = || {
        let error = format!("{text:?} is no id of a worker or host");
        let remedy = "it has 32 hexadecimal digits, as GET /v1/workers and /v1/hosts show it";
        Failure::unreadable(error, remedy)
    };
    let is_plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| is_plain);
    number.map(|number| PeerId(number.to_be_bytes())).ok_or_else(wrong)
}

//! What operators see and do: through a broker's admin API (docs/admin.md).

mod dead;
mod http;
mod show;

use std::io::Write as _;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::failure::{Failure, OK};
pub(crate) use dead::{Dead, dead};
use http::{Api, segment};

/// How an answer is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// What the admin API answers, all pages as one
    Json,
}

/// Where to ask, and how to print the answer.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// The broker's admin API: ADDRESS:PORT or unix:/PATH, as its own --http says
    #[arg(
        long,
        value_name = "LISTEN",
        env = "PINMESH_HTTP",
        default_value = "127.0.0.1:5557",
        global = true
    )]
    http: String,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
}

/// Nothing but where and how.
#[derive(Debug, Args)]
pub(crate) struct Plain {
    #[command(flatten)]
    admin: Admin,
}

#[derive(Debug, Args)]
pub(crate) struct Tasks {
    /// Only those of this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Debug, Args)]
pub(crate) struct OfTask {
    /// Its number, as `pinmesh tasks` shows it
    task: u64,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// Its number, as `pinmesh tasks` shows it
    task: u64,
    /// Kill it, instead of asking its handler to stop
    #[arg(long)]
    hard: bool,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Debug, Args)]
pub(crate) struct OfService {
    /// The service
    service: String,
    #[command(flatten)]
    admin: Admin,
}

/// Who is to leave.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Whom {
    /// The broker itself: it accepts nothing new, finishes what it holds and ends
    Broker,
    /// A host, by its name, its id or the first digits of that: its supervisor and all its workers
    /// leave
    Host { host: String },
    /// One worker, HOST/SLOT or its id: it leaves, and its supervisor starts another in its place
    #[command(name = "worker")]
    Worker {
        #[arg(value_name = "HOST/SLOT")]
        worker: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    #[command(subcommand)]
    whom: Whom,
    #[command(flatten)]
    admin: Admin,
}

pub(crate) fn services(args: &Plain) -> Result<u8, Failure> {
    list(&args.admin, ("services", "/v1/services"), show::services)
}

pub(crate) fn workers(args: &Plain) -> Result<u8, Failure> {
    list(&args.admin, ("workers", "/v1/workers"), show::workers)
}

pub(crate) fn hosts(args: &Plain) -> Result<u8, Failure> {
    list(&args.admin, ("hosts", "/v1/hosts"), show::hosts)
}

pub(crate) fn clients(args: &Plain) -> Result<u8, Failure> {
    list(&args.admin, ("clients", "/v1/clients"), show::clients)
}

pub(crate) fn tasks(args: &Tasks) -> Result<u8, Failure> {
    let path = match &args.service {
        Some(service) => format!("/v1/tasks?service={}", segment(service)),
        None => "/v1/tasks".to_owned(),
    };
    list(&args.admin, ("tasks", &path), show::tasks)
}

pub(crate) fn ledger(args: &Plain) -> Result<u8, Failure> {
    let answer = Api::new(&args.admin.http)?.get("/v1/ledger")?;
    print(&args.admin, &answer, show::ledger)
}

pub(crate) fn explain(args: &OfTask) -> Result<u8, Failure> {
    let answer = Api::new(&args.admin.http)?.get(&format!("/v1/tasks/{}", args.task))?;
    print(&args.admin, &answer, show::explanation)
}

pub(crate) fn cancel(args: &Cancel) -> Result<u8, Failure> {
    let path = format!("/v1/tasks/{}/cancel?hard={}", args.task, args.hard);
    let answer = Api::new(&args.admin.http)?.post(&path)?;
    print(&args.admin, &answer, |answer| match answer["state"].as_str() {
        Some("cancelled") => format!("task {}: cancelled\n", args.task),
        _ => format!("task {}: its worker was asked to stop it\n", args.task),
    })
}

pub(crate) fn pause(args: &OfService) -> Result<u8, Failure> {
    to_service(args, "pause", |answer| match answer["was_paused"].as_bool() {
        Some(true) => "was paused already".to_owned(),
        _ => "paused; what was sent runs on".to_owned(),
    })
}

pub(crate) fn resume(args: &OfService) -> Result<u8, Failure> {
    to_service(args, "resume", |answer| match answer["was_paused"].as_bool() {
        Some(true) => "resumed".to_owned(),
        _ => "was not paused".to_owned(),
    })
}

pub(crate) fn purge(args: &OfService) -> Result<u8, Failure> {
    to_service(args, "purge", |answer| {
        format!("{} waiting tasks ended CANCELLED", answer["purged"].as_u64().unwrap_or_default())
    })
}

fn to_service(
    args: &OfService,
    verb: &str,
    words: impl Fn(&Value) -> String,
) -> Result<u8, Failure> {
    let path = format!("/v1/services/{}/{verb}", segment(&args.service));
    let answer = Api::new(&args.admin.http)?.post(&path)?;
    print(&args.admin, &answer, |answer| format!("{}: {}\n", args.service, words(answer)))
}

pub(crate) fn drain(args: &Drain) -> Result<u8, Failure> {
    let api = Api::new(&args.admin.http)?;
    let path = match &args.whom {
        Whom::Host { host } => format!("/v1/hosts/{}/drain", host_id(&api, host)?),
        Whom::Worker { worker } => match worker.rsplit_once('/') {
            Some((host, slot)) => {
                let slot: u16 = slot.parse().map_err(|_| {
                    let remedy = "write HOST/SLOT, such as farm1/0, or its id";
                    Failure::usage(format!("{worker}: {slot:?} is no slot: {remedy}"))
                })?;
                format!("/v1/hosts/{}/workers/{slot}/drain", host_id(&api, host)?)
            }
            None => format!("/v1/workers/{}/drain", segment(worker)),
        },
        Whom::Broker => "/v1/drain".to_owned(),
    };
    let answer = api.post(&path)?;
    print(&args.admin, &answer, |answer| match answer["asked_to_leave"].as_str() {
        Some(whom) => format!("{whom}: asked to leave; it finishes what it holds\n"),
        None => "the broker drains: it finishes what it holds and ends\n".to_owned(),
    })
}

/// The id of a host by its name or by the first digits of its id.
fn host_id(api: &Api, text: &str) -> Result<String, Failure> {
    let hosts = pages(api, "hosts", "/v1/hosts")?;
    let is_meant = |host: &&Value| {
        let (id, name) = (host["id"].as_str(), host["name"].as_str());
        let short = name.and_then(|name| Some(name.rsplit_once('@')?.1));
        !text.is_empty()
            && (name == Some(text)
                || short == Some(text)
                || id.is_some_and(|id| id.starts_with(text)))
    };
    let found: Vec<&Value> = hosts.iter().filter(is_meant).collect();
    match found[..] {
        [host] => Ok(host["id"].as_str().unwrap_or_default().to_owned()),
        [] => Err(Failure::task(format!("no host is called {text:?}: `pinmesh hosts` lists them"))),
        _ => {
            let ids: Vec<_> = found.iter().filter_map(|host| host["id"].as_str()).collect();
            let ids = ids.join(", ");
            Err(Failure::usage(format!("{text:?} may be {ids}: give more digits of the id")))
        }
    }
}

/// Everything of a list, page by page.
fn pages(api: &Api, name: &str, path: &str) -> Result<Vec<Value>, Failure> {
    let mut all = Vec::new();
    let mut next = path.to_owned();
    let joint = if path.contains('?') { '&' } else { '?' };
    loop {
        let mut page = api.get(&next)?;
        if let Value::Array(items) = page[name].take() {
            all.extend(items);
        }
        next = match (page["next_from"].as_u64(), page["next_after"].as_str()) {
            (Some(from), _) => format!("{path}{joint}from={from}"),
            (None, Some(after)) => format!("{path}{joint}after={}", segment(after)),
            (None, None) => return Ok(all),
        };
    }
}

fn list(
    admin: &Admin,
    (name, path): (&str, &str),
    table: impl Fn(&[Value]) -> String,
) -> Result<u8, Failure> {
    let all = pages(&Api::new(&admin.http)?, name, path)?;
    print(admin, &json!({ name: all }), |answer| {
        table(answer[name].as_array().map_or(&[][..], Vec::as_slice))
    })
}

fn print(admin: &Admin, answer: &Value, words: impl Fn(&Value) -> String) -> Result<u8, Failure> {
    let text = match admin.output {
        Output::Table => words(answer),
        Output::Json => format!("{answer:#}\n"),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))?;
    Ok(OK)
}

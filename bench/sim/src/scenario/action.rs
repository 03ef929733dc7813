//! What a scenario does to its fleet, as it is read.

use std::sync::Arc;

use pinmesh_core::CoreConfig;
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::id::Priority;
use pinmesh_session::client::Cancel;

use super::limits::limit;
use super::names::{Actor, Names};
use super::words::Words;
use crate::client::Ask;
use crate::clock::MS;
use crate::net::Direction;
use crate::shape::SERVICES;
use crate::task::{Act, Key, PAYLOAD_MIN, Plan};

/// Longer than any scenario: until it is taken back, or until faults are over.
pub(super) const FOR_EVER: u64 = 1_000_000_000 * MS;

/// Something that is done.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Submit {
        client: usize,
        asks: Vec<Ask>,
    },
    Cancel {
        client: usize,
        request: String,
        how: Cancel,
    },
    /// A process dies. It is not followed by another but by a supervisor's doing.
    Kill(Actor),
    Start(Actor),
    /// A broker dies and another one comes at once.
    Restart(usize),
    Stop(Actor, u64),
    Continue(Actor),
    /// A whole host stands still, and its clock does not.
    Freeze(usize, u64),
    Drain(Actor),
    /// A host's workers are started anew.
    Renew(usize),
    /// A machine and brokers, for so long; neither notices before it misses the other.
    CutOff(Actor, Vec<usize>, u64),
    /// Connections break, and come back at once.
    Break(Actor, usize),
    /// The next message that has such a command is lost, and the connection breaks over it.
    Lose {
        peer: Actor,
        broker: usize,
        direction: Direction,
        command: Vec<String>,
    },
    /// Nothing of one arrives at the other, by whatever connection; nothing is lost.
    Deafen {
        peer: Actor,
        broker: usize,
        direction: Direction,
        length: u64,
    },
    Jump(Actor, u64),
    /// A broker's next life has another limit.
    Limit(usize, String),
    /// A broker says RECALL of a request's latest attempt, which it sent to that worker.
    SayRecall {
        broker: usize,
        worker: Actor,
        request: String,
    },
    /// A worker says WINDOW.
    SayWindow {
        worker: Actor,
        broker: usize,
        tasks: u32,
    },
}

impl Action {
    pub(super) fn parse(words: &mut Words<'_>, names: &Names) -> Result<Self, String> {
        let verb = words.next("what is to be done")?;
        let actor = |words: &mut Words<'_>| names.actor(words.next("whose name")?);
        let broker = |words: &mut Words<'_>| names.broker(words.next("a broker")?);
        Ok(match verb {
            "kill" => Self::Kill(actor(words)?),
            "start" => Self::Start(actor(words)?),
            "restart" => Self::Restart(broker(words)?),
            "stop" => Self::Stop(actor(words)?, length(words)?),
            "continue" => Self::Continue(actor(words)?),
            "freeze" => Self::Freeze(names.host(words.next("a host")?)?, length(words)?),
            "drain" => Self::Drain(actor(words)?),
            "renew" => match actor(words)? {
                Actor::Host(at) => Self::Renew(at),
                other => return Err(format!("{other:?} is no host")),
            },
            "cut" => {
                words.need("off")?;
                let whom = actor(words)?;
                words.need("from")?;
                let brokers = match words.take("all") {
                    true => (0..names.brokers).collect(),
                    false => vec![broker(words)?],
                };
                words.need("for")?;
                Self::CutOff(whom, brokers, words.duration()?)
            }
            "break" => {
                words.need("the link of")?;
                let whom = actor(words)?;
                words.need("to")?;
                Self::Break(whom, broker(words)?)
            }
            "lose" => parse_lose(words, names)?,
            "deafen" | "mute" => {
                let peer = actor(words)?;
                words.need("to")?;
                let broker = broker(words)?;
                words.need("for")?;
                let direction = if verb == "mute" { Direction::Up } else { Direction::Down };
                Self::Deafen { peer, broker, direction, length: words.duration()? }
            }
            "jump" => {
                let whom = actor(words)?;
                words.need("by")?;
                Self::Jump(whom, words.duration()?)
            }
            "limit" => {
                let at = broker(words)?;
                words.need("to")?;
                let text = words.up_to_comma().join(" ");
                // Read twice: now, to object to it, and on top of its other limits when it is set.
                let mut core = CoreConfig { is_credit_fixed: true, ..CoreConfig::default() };
                let mut rest = Words::new(&text);
                limit(&mut rest, &mut core)?;
                rest.end()?;
                Self::Limit(at, text)
            }
            name => match (names.actor(name)?, words.next("what it does")?) {
                (Actor::Client(client), "submits") => parse_submit(words, client)?,
                (Actor::Client(client), "cancels") => {
                    let request = names.request(words.next("a request")?)?;
                    let how = if words.take("hard") { Cancel::Hard } else { Cancel::Soft };
                    Self::Cancel { client, request, how }
                }
                (worker @ (Actor::Worker(..) | Actor::Loner(_)), "says") => {
                    words.need("WINDOW")?;
                    let tasks = words.number()? as u32;
                    words.need("to")?;
                    Self::SayWindow { worker, broker: broker(words)?, tasks }
                }
                (Actor::Broker(broker), "recalls") => {
                    let request = names.request(words.next("a request")?)?;
                    words.need("from")?;
                    Self::SayRecall { broker, worker: actor(words)?, request }
                }
                (_, verb) => return Err(format!("{name} cannot do that: {verb}")),
            },
        })
    }
}

fn length(words: &mut Words<'_>) -> Result<u64, String> {
    if words.take("for") { words.duration() } else { Ok(FOR_EVER) }
}

fn parse_lose(words: &mut Words<'_>, names: &Names) -> Result<Action, String> {
    words.need("the next")?;
    let mut command = Vec::new();
    while words.peek().is_some_and(|word| word != "from") {
        command.push(words.next("a word")?);
    }
    let command = names.command(&command)?;
    words.need("from")?;
    let from = names.actor(words.next("the sender")?)?;
    words.need("to")?;
    let to = names.actor(words.next("the receiver")?)?;
    let (peer, broker, direction) = match (from, to) {
        (Actor::Broker(_), Actor::Broker(_)) => return Err("brokers do not talk".into()),
        (Actor::Broker(broker), peer) => (peer, broker, Direction::Down),
        (peer, Actor::Broker(broker)) => (peer, broker, Direction::Up),
        _ => return Err("one of the two must be a broker".into()),
    };
    Ok(Action::Lose { peer, broker, direction, command })
}

fn parse_submit(words: &mut Words<'_>, client: usize) -> Result<Action, String> {
    let mut requests = Vec::new();
    while words.peek().is_some_and(|word| word != "that") {
        requests.push(words.next("a name")?.to_owned());
    }
    words.need("that")?;
    let mut ask = parse_act(words)?;
    let mut options = TaskOptions::default();
    while words.take(",") {
        if words.take("at most once") {
            options.at_most_once = true;
        } else if words.take("deadline") {
            ask.deadline_ns = Some(words.duration()?);
        } else if words.take("starts after") {
            ask.start_after_ns = Some(words.duration()?);
        } else if words.take("killed at its deadline") {
            options.kill_at_deadline = true;
        } else if words.take("max runtime") {
            options.max_runtime_ns = Some(words.duration()?);
        } else if words.take("tries") {
            options.tries_max = Some(words.number()? as u32);
        } else if words.take("backoff") {
            let backoff = words.duration()?;
            (options.backoff_ns, options.backoff_max_ns) = (Some(backoff), Some(backoff));
        } else if words.take("priority") {
            let priority = words.number()? as u8;
            ask.priority = Priority::new(priority).ok_or("a priority is 1 to 10")?;
        } else if words.take("payload") {
            ask.len = words.bytes()? as usize;
        } else if words.take("shows BUSY") {
            ask.shows_busy = true;
        } else if words.take("service") {
            let name = words.next("a service")?;
            let at = SERVICES.iter().position(|service| *service == name);
            ask.service = at.ok_or_else(|| format!("{name:?} is no service"))? as u32;
        } else {
            return Err(words.unknown("an option of a request"));
        }
    }
    ask.is_at_most_once = options.at_most_once;
    ask.options = (!options.is_default()).then(|| Arc::from(options.encode()));
    let asks = requests.into_iter().map(|name| Ask { name: Some(name), ..ask.clone() });
    Ok(Action::Submit { client, asks: asks.collect() })
}

/// What the handler does.
fn parse_act(words: &mut Words<'_>) -> Result<Ask, String> {
    let (act, duration) = if words.take("runs") {
        (Act::Ok, words.duration()?)
    } else if words.take("fails after") {
        (Act::Fail, words.duration()?)
    } else if words.take("once fails after") {
        (Act::FailOnce, words.duration()?)
    } else if words.take("fails for good after") {
        (Act::FailFinal, words.duration()?)
    } else if words.take("kills its worker after") {
        (Act::Poison, words.duration()?)
    } else if words.take("once kills its worker after") {
        (Act::CrashOnce, words.duration()?)
    } else if words.take("hangs") {
        (Act::Hang, MS)
    } else if words.take("waits for its cancel") {
        (Act::Wait, MS)
    } else {
        return Err(words.unknown("what the request does"));
    };
    let is_obedient = words.take("and obeys a cancel");
    let mut updates = 0;
    if words.take("and says") {
        updates = u8::try_from(words.number()?).map_err(|_| "at most 255 updates")?;
        words.need("updates")?;
    }
    Ok(Ask {
        plan: Plan { key: Key::default(), act, duration, is_obedient, updates },
        len: PAYLOAD_MIN,
        service: 0,
        priority: Priority::default(),
        deadline_ns: None,
        start_after_ns: None,
        options: None,
        is_at_most_once: false,
        runs_on: false,
        key: None,
        has_bad_options: false,
        shows_busy: false,
        name: None,
    })
}

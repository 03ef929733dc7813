//! Lines of a scenario, as they are read.

use super::PATIENCE;
use super::action::Action;
use super::check::Check;
use super::limits::{fleet_limit, limit};
use super::names::Names;
use super::words::Words;
use crate::shape::Shape;

/// What a line says.
#[derive(Clone, Debug)]
pub(super) enum Statement {
    /// At that true time, nanoseconds.
    At(u64, Action),
    /// So long after the line before, nanoseconds.
    After(u64, Option<Action>),
    When(Vec<String>, Action),
    /// Least and most time after the line before, nanoseconds.
    Then(Vec<String>, (u64, u64)),
    Never(Vec<String>),
    SoFar(Check),
    InTheEnd(Check),
}

/// A line, with those that go on with it.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) text: String,
    pub(super) statement: Statement,
}

/// A scenario.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) shape: Shape,
    pub(super) lines: Vec<Line>,
    /// Attempts at once that the rules excuse.
    pub(super) overlaps: u64,
}

impl Script {
    /// Reads a scenario.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = joined(text).into_iter().peekable();
        let Some((number, first)) = lines.next() else {
            return Err("an empty scenario shows nothing".into());
        };
        let at = |number: usize| move |why: String| format!("line {number}: {why}");
        let (mut names, mut shape) = fleet(&first).map_err(at(number))?;
        while let Some((number, line)) = lines.next_if(|(_, line)| line.starts_with("limits")) {
            limits(&line, &names, &mut shape).map_err(at(number))?;
        }
        let lines: Vec<_> = lines.collect();
        for (number, line) in &lines {
            collect_requests(line, &mut names).map_err(at(*number))?;
        }
        let mut script = Self { shape, lines: Vec::new(), overlaps: 0 };
        for (number, text) in lines {
            let statement = script.statement(&text, &names).map_err(at(number))?;
            script.lines.extend(statement.map(|statement| Line { number, text, statement }));
        }
        script.objection(&names).map_or(Ok(script.clone()), Err)
    }

    fn statement(&mut self, text: &str, names: &Names) -> Result<Option<Statement>, String> {
        let mut words = Words::new(text);
        let words = &mut words;
        let statement = if words.take("at") {
            let at = words.duration()?;
            Statement::At(at, behind_comma(words, names)?)
        } else if words.take("after") {
            let wait = words.duration()?;
            Statement::After(wait, Some(behind_comma(words, names)?))
        } else if words.take("wait") {
            Statement::After(words.duration()?, None)
        } else if words.take("when") {
            let event = names.event(&words.up_to_comma())?;
            Statement::When(event, behind_comma(words, names)?)
        } else if words.take("then") {
            let event = names.event(&words.up_to_comma())?;
            Statement::Then(event, times(words)?)
        } else if words.take("never") {
            Statement::Never(names.event(&words.up_to_comma())?)
        } else if words.take("so far") {
            Statement::SoFar(Check::parse(words, names)?)
        } else if words.take("in the end") {
            if let Ok(overlaps) = words.clone().number() {
                words.number()?;
                words.need("attempts overlap")?;
                words.end()?;
                self.overlaps = overlaps;
                return Ok(None);
            }
            Statement::InTheEnd(Check::parse(words, names)?)
        } else {
            Statement::After(0, Some(Action::parse(words, names)?))
        };
        words.end()?;
        Ok(Some(statement))
    }

    /// What is missing for it to show anything.
    fn objection(&self, names: &Names) -> Option<String> {
        let has_told = |request: &String| {
            self.lines.iter().any(|line| match &line.statement {
                Statement::InTheEnd(Check::Outcome { request: of, .. }) => of == request,
                _ => false,
            })
        };
        if names.requests.is_empty() {
            return Some("nobody submits anything: that shows nothing".into());
        }
        let untold = names.requests.iter().find(|request| !has_told(request))?;
        Some(format!("what becomes of {untold}? say: in the end {untold} is ..."))
    }
}

/// Lines without remarks, and each with those that go on with it; numbers count from 1.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        // A worker's life has a # too, but no space before it.
        let line = raw.split(" #").next().unwrap_or_default();
        let line = if line.starts_with('#') { "" } else { line };
        if line.trim().is_empty() {
            continue;
        }
        match lines.last_mut().filter(|_| line.starts_with(' ')) {
            Some((_, before)) => {
                before.push(' ');
                before.push_str(line.trim());
            }
            None => lines.push((index + 1, line.trim_end().to_owned())),
        }
    }
    lines
}

fn fleet(line: &str) -> Result<(Names, Shape), String> {
    let mut words = Words::new(line);
    words.need("fleet :")?;
    let mut names = Names::default();
    loop {
        if words.take("hosts of") || words.take("a host of") {
            names.hosts.push(words.number()? as usize);
            while words.take(",") || words.take("and") {
                names.hosts.push(words.number()? as usize);
            }
            let _ = words.take("workers") || words.take("worker");
        } else {
            let count = words.number()? as usize;
            match words.next("broker, loner or client")? {
                "broker" | "brokers" => names.brokers = count,
                "loner" | "loners" => names.loners = count,
                "client" | "clients" => names.clients = count,
                other => return Err(format!("{other:?} is no part of a fleet")),
            }
        }
        if !words.take(",") {
            break;
        }
    }
    words.end()?;
    if names.brokers == 0 || names.clients == 0 {
        return Err("a fleet has at least a broker and a client".into());
    }
    let shape = Shape::plain(names.brokers, names.hosts.clone(), names.loners, names.clients);
    Ok((names, shape))
}

fn limits(line: &str, names: &Names, shape: &mut Shape) -> Result<(), String> {
    let mut words = Words::new(line);
    words.need("limits")?;
    let broker = match words.take("of") {
        true => Some(names.broker(words.next("a broker")?)?),
        false => None,
    };
    words.need(":")?;
    loop {
        match broker {
            Some(at) => {
                let core = shape.core.clone();
                limit(&mut words, shape.own_cores.entry(at).or_insert(core))?;
            }
            None => fleet_limit(&mut words, shape)?,
        }
        if !words.take(",") {
            return words.end();
        }
    }
}

/// Requests have names before they are handed in, so that what must never become of them can be
/// said first.
fn collect_requests(line: &str, names: &mut Names) -> Result<(), String> {
    let mut words = Words::new(line);
    while let Ok(word) = words.next("a word") {
        if word != "submits" {
            continue;
        }
        while let Some(request) = words.peek().filter(|word| *word != "that") {
            words.next("a name")?;
            Names::check_request(request)?;
            if !names.requests.insert(request.into()) {
                return Err(format!("{request} is submitted twice"));
            }
        }
    }
    Ok(())
}

fn behind_comma(words: &mut Words<'_>, names: &Names) -> Result<Action, String> {
    words.need(",")?;
    Action::parse(words, names)
}

fn times(words: &mut Words<'_>) -> Result<(u64, u64), String> {
    if !words.take(",") {
        return Ok((0, PATIENCE));
    }
    if words.take("within") {
        return Ok((0, words.duration()?));
    }
    words.need("between")?;
    let least = words.duration()?;
    words.need("and")?;
    Ok((least, words.duration()?))
}

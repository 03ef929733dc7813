//! Scenarios: what happens to a fleet, step by step, and what must come of it, in plain text. They
//! stand in `bench/sim/scenarios`, one for each sequence that PROTOCOL.md promises something about.
//!
//! ```text
//! # A worker dies after its task: the task runs again only if its DONE was lost.
//! fleet: 1 broker, hosts of 1 and 1 workers, 1 client
//! limits: heartbeat 1 s
//!
//! at 1 s, lose the next DONE job from h0.0 to a
//! c0 submits job that runs 100 ms
//! when h0.0 ends job, kill h0.0
//! then a hears LOST started job from h0, within 1 s
//! then h1.0 starts job d2
//! in the end job is OK after 2 attempts on h0.0, h1.0
//! in the end a counts requeued 1
//! ```
//!
//! Brokers are `a`, `b`; hosts and their supervisors `h0`, their workers `h0.0`, or `h0.0#2` for a
//! life; workers without a supervisor `l0`; clients `c0`. Lines are taken one after the other; one
//! that begins with a space goes on where the one before ends.
//!
//! * `at 3 s, ACTION`, `after 2 s, ACTION`, `ACTION`, and `wait 5 s`.
//! * `when EVENT, ACTION` waits for the event, at most 60 s.
//! * `then EVENT`, `then EVENT, within 3 s`, `then EVENT, between 15 s and 17 s`: counted from the
//!   line before.
//! * `never EVENT`: from here on, until everything has come to its end.
//! * `so far CHECK`, `in the end CHECK`: now, or when faults are over and nobody waits any more.
//!
//! An EVENT is a line of the story: its first word, and words that follow in this order. Every
//! request must have its `in the end REQUEST is ...`, and two attempts at once that the rules excuse
//! must be announced with `in the end 1 attempts overlap`. What must always hold is checked as in a
//! campaign.

mod act;
mod action;
mod check;
mod limits;
mod names;
mod script;
mod words;

use std::collections::BTreeMap;

use crate::campaign::Steps;
use crate::clock::{S, Wake};
use crate::fleet::Fleet;
use crate::story::fits;
use crate::task::Key;
use crate::world::{At, Story};
use script::{Line, Script, Statement};

/// How long an event is waited for where the line does not say, nanoseconds.
const PATIENCE: u64 = 60 * S;
/// A scenario that was played.
#[derive(Debug)]
pub struct Played {
    /// What happened: true time in nanoseconds, and what.
    pub story: Vec<(u64, String)>,
    /// Whether everything was as expected; if not, the line, what it expects, and what happened.
    pub result: Result<(), String>,
}

/// Plays a scenario.
pub fn play(text: &str) -> Played {
    let script = match Script::parse(text) {
        Ok(script) => script,
        Err(error) => return Played { story: Vec::new(), result: Err(error) },
    };
    let mut player = Player::new(&script);
    let result = player.play(&script);
    Played { result, story: player.take_story() }
}

struct Player {
    fleet: Fleet,
    steps: Steps,
    keys: BTreeMap<String, Key>,
    /// Lines of the story that the script has passed.
    read: usize,
    /// Lines that were looked at for what must never happen.
    watched: usize,
    never: Vec<(usize, Vec<String>)>,
    /// When the line before was done with.
    since: u64,
}

impl Player {
    fn new(script: &Script) -> Self {
        Self {
            fleet: Fleet::exact(script.shape.clone()),
            steps: Steps::new(0),
            keys: BTreeMap::new(),
            read: 0,
            watched: 0,
            never: Vec::new(),
            since: 0,
        }
    }

    fn play(&mut self, script: &Script) -> Result<(), String> {
        for line in &script.lines {
            self.line(line).map_err(|why| self.report(line, &why))?;
            self.since = self.fleet.world.now;
        }
        let settled = self.steps.settle(&mut self.fleet).map_err(|failure| failure.text);
        settled.and_then(|()| self.watch()).map_err(|why| self.report_end(&why))?;
        for line in &script.lines {
            if let Statement::InTheEnd(check) = &line.statement {
                self.check(check).map_err(|why| self.report(line, &why))?;
            }
        }
        self.check_overlaps(script.overlaps).map_err(|why| self.report_end(&why))?;
        let closed = self.steps.close(&mut self.fleet).map_err(|failure| failure.text);
        closed.map_err(|why| self.report_end(&why))
    }

    fn line(&mut self, line: &Line) -> Result<(), String> {
        match &line.statement {
            Statement::At(at, action) => {
                if *at < self.fleet.world.now {
                    return Err(format!("it is {} s by then", At(self.fleet.world.now)));
                }
                self.wait_until(*at)?;
                self.act(action)
            }
            Statement::After(wait, action) => {
                self.wait_until(self.fleet.world.now + wait)?;
                action.as_ref().map_or(Ok(()), |action| self.act(action))
            }
            Statement::When(event, action) => {
                self.seek(event, 0, PATIENCE)?;
                self.act(action)
            }
            Statement::Then(event, (least, most)) => self.seek(event, *least, *most),
            Statement::Never(event) => {
                self.never.push((line.number, event.clone()));
                Ok(())
            }
            Statement::SoFar(check) => self.check(check),
            Statement::InTheEnd(_) => Ok(()),
        }
    }

    /// One thing happens.
    fn step(&mut self) -> Result<(), String> {
        self.steps.one(&mut self.fleet).map_err(|failure| failure.text)?;
        self.watch()
    }

    /// Looks for what must never happen in what was told since the last look.
    fn watch(&mut self) -> Result<(), String> {
        let Story::All(story) = &self.fleet.world.story else { return Ok(()) };
        for (at, told) in &story[self.watched..] {
            if let Some((number, _)) = self.never.iter().find(|(_, event)| fits(told, event)) {
                return Err(format!("line {number} says never, but at {} s: {told}", At(*at)));
            }
        }
        self.watched = story.len();
        Ok(())
    }

    fn wait_until(&mut self, at: u64) -> Result<(), String> {
        self.fleet.world.agenda.add(at, Wake::Line);
        while self.fleet.world.now < at {
            self.step()?;
        }
        Ok(())
    }

    /// Waits for a line of the story, so long after the line before.
    fn seek(&mut self, event: &[String], least: u64, most: u64) -> Result<(), String> {
        let (least, most) = (self.since + least, self.since.saturating_add(most));
        let mut looked = self.read;
        loop {
            if let Some((at, index)) = self.find(event, &mut looked) {
                if at < least || at > most {
                    let (at, least, most) = (At(at), At(least), At(most));
                    return Err(format!("it happened at {at} s, not between {least} and {most} s"));
                }
                self.read = index + 1;
                return Ok(());
            }
            if self.fleet.world.now > most {
                return Err(format!("it had not happened by {} s", At(most)));
            }
            self.step()?;
        }
    }

    fn find(&self, event: &[String], looked: &mut usize) -> Option<(u64, usize)> {
        let Story::All(story) = &self.fleet.world.story else { return None };
        let found = story[*looked..].iter().position(|(_, told)| fits(told, event));
        let Some(found) = found else {
            *looked = story.len();
            return None;
        };
        let index = *looked + found;
        Some((story[index].0, index))
    }

    fn take_story(&mut self) -> Vec<(u64, String)> {
        match &mut self.fleet.world.story {
            Story::All(story) => std::mem::take(story),
            Story::Silent | Story::Last(_) | Story::Print => Vec::new(),
        }
    }

    fn report(&self, line: &Line, why: &str) -> String {
        let at = At(self.fleet.world.now);
        format!("line {}: {}\n  at {at} s: {why}", line.number, line.text)
    }

    fn report_end(&self, why: &str) -> String {
        format!("after the last line, at {} s: {why}", At(self.fleet.world.now))
    }
}

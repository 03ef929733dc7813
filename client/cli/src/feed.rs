//! Inputs as `map` takes them: at once where they are at hand; from another thread where they come
//! through a pipe, so that one that is slow holds up neither results nor signals.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use pinmesh_client::Completions;

use crate::failure::Failure;
use crate::inputs::{Input, Source};

/// Lines that are read ahead.
const AHEAD: usize = 64;

/// What a feed has.
pub(crate) enum Next {
    /// An input, and its place.
    Input(u64, Input),
    /// Nothing yet; the wait for a task's end is interrupted when there is.
    NotYet,
    /// There will be no more.
    End,
}

enum From<'s> {
    Here(Box<dyn Iterator<Item = Input> + 's>),
    Thread(Receiver<Input>),
}

/// Where the inputs of a map come from, and how many have.
pub(crate) struct Feed<'s> {
    from: From<'s>,
    count: u64,
    is_over: bool,
}

impl<'s> Feed<'s> {
    /// `queue`: where who takes the inputs waits otherwise.
    pub(crate) fn new(source: &'s Source, queue: &Completions) -> Result<Self, Failure> {
        let from = match source.is_replayable() {
            true => From::Here(source.inputs()?),
            false => From::Thread(read_elsewhere(source, queue.clone())?),
        };
        Ok(Self { from, count: 0, is_over: false })
    }

    /// Inputs that have been taken.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whether there will be no more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(crate) fn next(&mut self) -> Next {
        if self.is_over {
            return Next::End;
        }
        let input = match &mut self.from {
            From::Here(inputs) => inputs.next(),
            From::Thread(inputs) => match inputs.try_recv() {
                Ok(input) => Some(input),
                Err(TryRecvError::Empty) => return Next::NotYet,
                Err(TryRecvError::Disconnected) => None,
            },
        };
        match input {
            Some(input) => {
                self.count += 1;
                Next::Input(self.count - 1, input)
            }
            None => {
                self.is_over = true;
                Next::End
            }
        }
    }
}

fn read_elsewhere(source: &Source, queue: Completions) -> Result<Receiver<Input>, Failure> {
    let source = source.clone();
    let (sender, receiver) = sync_channel(AHEAD);
    // Who cannot open it is told here.
    let (opened, is_opened) = sync_channel(1);
    let read = move || match source.inputs() {
        Ok(inputs) => {
            let _ = opened.send(Ok(()));
            pass_on(inputs, &sender, &queue);
            drop(sender);
            // The end is news too.
            queue.interrupt();
        }
        Err(failure) => {
            let _ = opened.send(Err(failure));
        }
    };
    let thread = std::thread::Builder::new().name("pinmesh-inputs".into()).spawn(read);
    thread.map_err(|error| Failure::task(format!("cannot start a thread that reads: {error}")))?;
    match is_opened.recv() {
        Ok(opened) => opened.map(|()| receiver),
        Err(_) => Err(Failure::task("the thread that reads the inputs has ended")),
    }
}

/// Ends when nobody takes them any more.
fn pass_on(inputs: impl Iterator<Item = Input>, sender: &SyncSender<Input>, queue: &Completions) {
    for input in inputs {
        if sender.send(input).is_err() {
            return;
        }
        queue.interrupt();
    }
}

//! Many tasks of one service, a bounded number at a time.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;

use pinmesh_protocol::id::RequestId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::completion::Completions;
use crate::payload::decode;
use crate::plan::Plan;
use crate::{Error, Result};

/// Outputs in the order in which they come, each with the place of its input. Made by
/// [`Client::map`] and [`Task::map`](crate::Task::map).
#[derive(Debug)]
pub struct Map<I, Out> {
    client: Client,
    plan: Plan,
    inputs: I,
    is_exhausted: bool,
    next_index: u64,
    window: usize,
    queue: Completions,
    under_way: HashMap<u64, RequestId>,
    output: PhantomData<fn() -> Out>,
}

impl<I, Out> Map<I, Out> {
    pub(crate) fn new(client: Client, plan: Plan, inputs: I, window: usize) -> Self {
        Self {
            queue: client.completions(),
            client,
            plan,
            inputs,
            is_exhausted: false,
            next_index: 0,
            window: window.max(1),
            under_way: HashMap::new(),
            output: PhantomData,
        }
    }
}

impl<I, In, Out> Map<I, Out>
where
    I: Iterator<Item = In>,
    In: Serialize,
{
    /// Hands in as many inputs as the window has room for. An input that cannot be handed in is the
    /// iterator's next item.
    fn fill(&mut self) -> Option<(usize, Error)> {
        while !self.is_exhausted && self.under_way.len() < self.window {
            let Some(input) = self.inputs.next() else {
                self.is_exhausted = true;
                return None;
            };
            let index = self.next_index;
            self.next_index += 1;
            // Waits only while the client's window is full, which other callers share.
            match self.plan.submit_to(&self.client.shared, &self.queue, index, &input) {
                Ok(request_id) => {
                    self.under_way.insert(index, request_id);
                }
                Err(error) => return Some((usize::try_from(index).unwrap_or(usize::MAX), error)),
            }
        }
        None
    }
}

impl<I, In, Out> Iterator for Map<I, Out>
where
    I: Iterator<Item = In>,
    In: Serialize,
    Out: DeserializeOwned,
{
    type Item = (usize, Result<Out>);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_end(true)
    }
}

impl<I, In, Out> Map<I, Out>
where
    I: Iterator<Item = In>,
    In: Serialize,
    Out: DeserializeOwned,
{
    /// The next end; hands in more before, if it may.
    fn next_end(&mut self, may_fill: bool) -> Option<(usize, Result<Out>)> {
        if may_fill && let Some((index, error)) = self.fill() {
            return Some((index, Err(error)));
        }
        if self.under_way.is_empty() {
            return None;
        }
        let (index, outcome) = self.queue.recv();
        self.under_way.remove(&index);
        let output = outcome.and_then(decode).map(|reply| reply.value);
        Some((usize::try_from(index).unwrap_or(usize::MAX), output))
    }
}

impl<I, In, Out> Map<I, Out>
where
    I: Iterator<Item = In>,
    In: Serialize,
    Out: DeserializeOwned,
{
    /// Outputs in the order of their inputs. One that is slow holds up those behind it, of which as
    /// many as the window are kept; then no more inputs are handed in until it has come.
    pub fn ordered(self) -> Ordered<I, Out> {
        Ordered { map: self, early: BTreeMap::new(), next: 0 }
    }

    /// All as one: every output in the order of the inputs, or the first failure, at which the rest
    /// is cancelled and no more is handed in.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pinmesh_client::Client::connect("tcp://127.0.0.1:5555")?;
    /// let squares: Vec<u64> = client.map("square", 0..1000_u64, 100).all()?;
    /// # assert_eq!(squares.len(), 1000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first failure, and which input's.
    pub fn all(mut self) -> Result<Vec<Out>, GroupError> {
        let mut outputs = Vec::new();
        for (index, output) in &mut self {
            let output = output.map_err(|error| GroupError { index, error })?;
            put(&mut outputs, index, output);
        }
        // Each input has had one output.
        Ok(outputs.into_iter().flatten().collect())
    }

    /// All, whether they fail or not: one output or failure for each input, in their order.
    pub fn settle(self) -> Vec<Result<Out>> {
        let mut outputs = Vec::new();
        for (index, output) in self {
            put(&mut outputs, index, output);
        }
        outputs.into_iter().flatten().collect()
    }
}

fn put<T>(outputs: &mut Vec<Option<T>>, index: usize, output: T) {
    if outputs.len() <= index {
        outputs.resize_with(index + 1, || None);
    }
    outputs[index] = Some(output);
}

/// One task of a group has failed, and the rest was cancelled. See [`Map::all`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupError {
    /// The place of its input.
    pub index: usize,
    /// How it ended.
    pub error: Error,
}

impl std::fmt::Display for GroupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "input {}: {}; the rest was cancelled", self.index, self.error)
    }
}

impl std::error::Error for GroupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Outputs in the order of their inputs. Made by [`Map::ordered`].
#[derive(Debug)]
pub struct Ordered<I, Out> {
    map: Map<I, Out>,
    /// Those that came before their turn.
    early: BTreeMap<usize, Result<Out>>,
    next: usize,
}

impl<I, In, Out> Iterator for Ordered<I, Out>
where
    I: Iterator<Item = In>,
    In: Serialize,
    Out: DeserializeOwned,
{
    type Item = Result<Out>;

    fn next(&mut self) -> Option<Result<Out>> {
        loop {
            if let Some(output) = self.early.remove(&self.next) {
                self.next += 1;
                return Some(output);
            }
            let may_fill = self.early.len() < self.map.window;
            let (index, output) = self.map.next_end(may_fill)?;
            self.early.insert(index, output);
        }
    }
}

impl<I, Out> Drop for Map<I, Out> {
    fn drop(&mut self) {
        for &request_id in self.under_way.values() {
            self.client.cancel(request_id);
        }
    }
}

//! Many tasks of one service, a bounded number at a time.

use std::collections::HashMap;
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
        if let Some((index, error)) = self.fill() {
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

impl<I, Out> Drop for Map<I, Out> {
    fn drop(&mut self) {
        for &request_id in self.under_way.values() {
            self.client.cancel(request_id);
        }
    }
}

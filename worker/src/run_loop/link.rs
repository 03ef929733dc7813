//! One broker as the run loop sees it: the socket, the batch being built for it, the payloads of
//! the tasks from it, and their slots on the status page.

use std::collections::VecDeque;
use std::sync::Arc;

use pinmesh_protocol::batch::BatchWriter;
use pinmesh_protocol::codec::{write_done, write_to_broker};
use pinmesh_protocol::command::{Done, FrameSpan, Payload, ToBroker, WorkerProgress};
use pinmesh_protocol::limits::{FRAME_BYTES_MAX, INLINE_BYTES_MAX};
use pinmesh_session::Time;
use pinmesh_session::slots::{BrokerIndex, SLOTS};
use pinmesh_session::worker::WorkerOutbox;
use pinmesh_transport::{
    Context, Dealer, Endpoint, Frame, Poller, SendOutcome, SocketOptions, Token, TransportError,
};

use crate::clock;
use crate::handler::{Input, Output, Pieces};
use crate::page::StatusPage;

/// Buffers kept for reuse, and the longest that is: enough for a full window of small tasks.
const POOL_MAX: usize = 2 * SLOTS;
const POOLED_BYTES_MAX: usize = 4 * 1024;

/// An end as it is kept until the broker has acknowledged it: DONE, encoded, and its frames.
#[derive(Debug)]
pub(super) struct End {
    head: Vec<u8>,
    frames: Vec<Frame>,
}

/// A task's payload while the task is held.
#[derive(Debug, Default)]
pub(super) enum Stored {
    #[default]
    Empty,
    Inline(Vec<u8>),
    Frames(Vec<Frame>),
}

impl Stored {
    /// As the handler sees it.
    pub(super) fn input(&self) -> Input<'_> {
        let pieces = match self {
            Self::Empty => Pieces::One(&[]),
            Self::Inline(bytes) => Pieces::One(bytes),
            Self::Frames(frames) => Pieces::Frames(frames),
        };
        Input { pieces }
    }
}

#[derive(Debug, Default)]
struct Place {
    /// Tells the tasks that used this place apart; 0 while nothing waits here.
    serial: u64,
    input: Stored,
}

/// Where a task waits for its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ticket {
    pub(super) index: u32,
    serial: u64,
}

pub(super) struct LinkIo {
    context: Context,
    endpoint: Endpoint,
    options: SocketOptions,
    token: Token,
    pub(super) broker: BrokerIndex,
    pub(super) dealer: Option<Dealer>,
    /// Closed, but still to be taken out of the poller.
    retired: Option<Dealer>,
    wants_socket: bool,
    batch: BatchWriter<Frame>,
    /// Full batches that the socket had no room for.
    unsent: VecDeque<BatchWriter<Frame>>,
    /// When the oldest command of the batch was written.
    batch_since: Option<Time>,
    pool: Vec<Vec<u8>>,
    places: Vec<Place>,
    serial: u64,
    pub(super) queue: VecDeque<Ticket>,
    page: Option<Arc<StatusPage>>,
    /// The first of this broker's slots on the page.
    first_slot: usize,
    failure: Option<TransportError>,
}

impl LinkIo {
    pub(super) fn new(
        context: Context,
        (endpoint, options): (Endpoint, SocketOptions),
        (index, brokers): (usize, usize),
        page: Option<Arc<StatusPage>>,
    ) -> Self {
        Self {
            context,
            endpoint,
            options,
            token: Token(index),
            broker: BrokerIndex(index as u16),
            dealer: None,
            retired: None,
            wants_socket: false,
            batch: BatchWriter::new(),
            unsent: VecDeque::new(),
            batch_since: None,
            pool: Vec::new(),
            places: Vec::new(),
            serial: 0,
            queue: VecDeque::new(),
            page,
            first_slot: index * (SLOTS / brokers),
            failure: None,
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn slot(&self, index: u32) -> usize {
        self.first_slot + index as usize
    }

    /// Does to the sockets what the machine asked for.
    pub(super) fn settle(&mut self, poller: &mut Poller) -> Result<(), TransportError> {
        if let Some(mut dealer) = self.retired.take() {
            poller.deregister(&mut dealer)?;
        }
        if std::mem::take(&mut self.wants_socket) {
            let mut dealer = Dealer::connect(&self.context, &self.endpoint, &self.options)?;
            poller.register(&mut dealer, self.token)?;
            self.dealer = Some(dealer);
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn retire(&mut self) {
        // Two retirements in one pass: the first one's successor was never connected.
        if let Some(dealer) = self.dealer.take() {
            self.retired = Some(dealer);
        }
        self.batch.clear();
        self.unsent.clear();
        self.batch_since = None;
    }

    /// Makes room for one more command.
    fn room(&mut self) {
        if self.batch.is_full() {
            self.turn_over();
        }
    }

    /// What comes next goes into another message.
    fn turn_over(&mut self) {
        self.flush();
        if !self.batch.is_empty() {
            let batch = std::mem::replace(&mut self.batch, BatchWriter::new());
            self.unsent.push_back(batch);
            self.batch_since = None;
        }
    }

    fn wrote(&mut self) {
        self.batch.count();
        if self.batch_since.is_none() {
            self.batch_since = Some(clock::now());
        }
    }

    /// Sends what has been written, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        let Some(dealer) = &mut self.dealer else { return };
        while let Some(batch) = self.unsent.front_mut() {
            if !sent(dealer, batch, &mut self.failure) {
                return;
            }
            self.unsent.pop_front();
        }
        if self.batch.is_empty() {
            return;
        }
        if sent(dealer, &mut self.batch, &mut self.failure) {
            self.batch.clear();
            self.batch_since = None;
        }
    }

    /// Whether the socket is full: nothing more is started, and sending is tried again soon.
    pub(super) fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether the socket did not take all that was flushed.
    pub(super) fn has_unsent(&self) -> bool {
        self.dealer.is_some() && (self.is_blocked() || !self.batch.is_empty())
    }

    /// Whether something has waited for so long, nanoseconds, to be sent.
    pub(super) fn has_waited(&self, now: Time, ns: u64) -> bool {
        self.batch_since.is_some_and(|since| now.since(since) >= ns)
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.pool.pop().unwrap_or_default()
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= POOLED_BYTES_MAX && self.pool.len() < POOL_MAX {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// Keeps the payload of a task that was taken, and queues it.
    pub(super) fn store(&mut self, index: u32, payload: Payload<'_>, frames: &mut [Frame]) {
        let input = match payload {
            Payload::Inline(bytes) => {
                let mut buffer = self.buffer();
                buffer.extend_from_slice(bytes);
                Stored::Inline(buffer)
            }
            Payload::Frames(span) => {
                let first = span.first as usize - 1;
                let frames = frames.iter_mut().skip(first).take(span.frames as usize);
                Stored::Frames(frames.map(Frame::share).collect())
            }
        };
        if self.places.len() <= index as usize {
            self.places.resize_with(index as usize + 1, Place::default);
        }
        self.serial += 1;
        self.places[index as usize] = Place { serial: self.serial, input };
        self.queue.push_back(Ticket { index, serial: self.serial });
    }

    /// The next task that still waits.
    pub(super) fn next_ticket(&mut self) -> Option<Ticket> {
        while let Some(&ticket) = self.queue.front() {
            if self.places[ticket.index as usize].serial == ticket.serial {
                return Some(ticket);
            }
            self.queue.pop_front();
        }
        None
    }

    /// Lends the payload of a task to its handler.
    pub(super) fn take_input(&mut self, index: u32) -> Stored {
        std::mem::take(&mut self.places[index as usize].input)
    }

    /// Takes it back, to be dropped with the task's place.
    pub(super) fn put_input_back(&mut self, index: u32, input: Stored) {
        self.places[index as usize].input = input;
    }

    fn drop_input(&mut self, index: u32) {
        let Some(place) = self.places.get_mut(index as usize) else { return };
        place.serial = 0;
        if let Stored::Inline(buffer) = std::mem::take(&mut place.input) {
            self.recycle(buffer);
        }
    }

    /// The attempt has ended: encodes its DONE, with the bytes of `output`, and lets its input go.
    /// Returns the length of what is kept.
    pub(super) fn encode_end(
        &mut self,
        index: u32,
        done: Done<'_>,
        output: &mut Output,
    ) -> (End, u64) {
        self.drop_input(index);
        let mut head = self.buffer();
        let bytes = output.bytes.len();
        if bytes < INLINE_BYTES_MAX {
            write_done(&mut head, &Done { payload: Payload::Inline(&output.bytes), ..done });
            let kept = head.len() as u64;
            return (End { head, frames: Vec::new() }, kept);
        }
        let frames = cut(fitted(std::mem::take(&mut output.bytes)));
        let span = FrameSpan { first: 1, frames: frames.len() as u32, bytes: bytes as u64 };
        write_done(&mut head, &Done { payload: Payload::Frames(span), ..done });
        let kept = (head.len() + bytes) as u64;
        (End { head, frames }, kept)
    }
}

impl LinkIo {
    /// An update, encoded, to be kept as an end is.
    pub(super) fn encode_update(&mut self, progress: WorkerProgress<'_>, payload: &[u8]) -> End {
        let mut head = self.buffer();
        let frames = match payload.len() {
            0..INLINE_BYTES_MAX => Vec::new(),
            _ => cut(payload.to_vec()),
        };
        let payload = match frames.len() {
            0 => Payload::Inline(payload),
            count => {
                let bytes = payload.len() as u64;
                Payload::Frames(FrameSpan { first: 1, frames: count as u32, bytes })
            }
        };
        write_to_broker(&mut head, &ToBroker::Progress(WorkerProgress { payload, ..progress }));
        End { head, frames }
    }
}

/// Without room to spare of more than the bytes themselves: what is kept is counted by its bytes.
fn fitted(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.shrink_to(bytes.len().saturating_mul(2));
    bytes
}

/// Cuts a result into frames. One frame takes the bytes as they are; beyond that each is copied
/// once, because a frame owns its memory.
fn cut(bytes: Vec<u8>) -> Vec<Frame> {
    if bytes.len() <= FRAME_BYTES_MAX {
        return vec![Frame::from(bytes)];
    }
    bytes.chunks(FRAME_BYTES_MAX).map(Frame::copy_of).collect()
}

fn sent(
    dealer: &mut Dealer,
    batch: &mut BatchWriter<Frame>,
    failure: &mut Option<TransportError>,
) -> bool {
    let frames = std::mem::take(batch.attachments_mut());
    let mut frames = frames;
    let outcome = dealer.send(batch.bytes(), &mut frames);
    *batch.attachments_mut() = frames;
    match outcome {
        Ok(SendOutcome::Sent) => true,
        Ok(SendOutcome::Full | SendOutcome::Gone) => false,
        Err(error) => {
            failure.get_or_insert(error);
            false
        }
    }
}

impl WorkerOutbox<End> for LinkIo {
    fn open(&mut self) {
        self.retire();
        self.wants_socket = true;
    }

    fn close(&mut self) {
        self.flush();
        self.retire();
        self.wants_socket = false;
    }

    fn send(&mut self, command: &ToBroker<'_>) {
        self.room();
        write_to_broker(self.batch.bytes_mut(), command);
        self.wrote();
    }

    fn send_end(&mut self, end: &mut End) {
        // A message arrives as a whole: the word of its long silence goes before it.
        match end.frames.len() > 1 {
            true => self.turn_over(),
            false => self.room(),
        }
        self.batch.bytes_mut().extend_from_slice(&end.head);
        if !end.frames.is_empty() {
            let frames = end.frames.iter_mut().map(|frame| {
                let bytes = frame.len();
                (frame.share(), bytes)
            });
            let span = self.batch.attach(frames);
            debug_assert_eq!(span.first, 1, "a message carries the frames of one payload");
        }
        self.wrote();
    }

    fn drop_update(&mut self, update: End) {
        self.recycle(update.head);
    }

    fn forget(&mut self, index: u32, end: Option<End>) {
        self.drop_input(index);
        if let Some(end) = end {
            self.recycle(end.head);
        }
        if let Some(page) = &self.page {
            page.free(self.slot(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_is_kept_takes_no_more_memory_than_twice_its_bytes() {
        let mut bytes = Vec::with_capacity(64 << 20);
        bytes.resize(40 << 10, 7);
        let bytes = fitted(bytes);
        assert_eq!(bytes.len(), 40 << 10);
        assert!(bytes.capacity() <= 80 << 10, "{}", bytes.capacity());
    }
}

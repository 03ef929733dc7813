//! The IO thread: orders and messages in, batches out. It decides nothing; the session machine does.
//!
//! A turn takes the orders that have come, reads what is ready, wakes the machine if it is time,
//! and sends one batch a broker. While orders and results keep coming, batches grow by themselves;
//! with nothing to do it sleeps in the poller.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pinmesh_protocol::BatchReader;
use pinmesh_protocol::status::RefusedCode;
use pinmesh_session::client::{Client as Machine, ClientConfig, ClientEvent, LinkId};
use pinmesh_transport::{Dealer, Message, Pollable, Poller, Result as TransportResult};

use crate::callback;
use crate::net::Net;
use crate::shared::{Body, Order, Shared};

/// Messages that a turn reads from one broker, so that orders are not kept waiting.
const MESSAGES_A_TURN: usize = 64;
/// How soon a socket that was full is tried again, if nothing wakes the thread before.
const FULL_RETRY: Duration = Duration::from_millis(1);

struct Closing {
    until: Instant,
    awaits_results: bool,
}

pub(crate) struct IoLoop {
    machine: Machine<Body>,
    net: Net,
    shared: Arc<Shared>,
    /// Empty between turns; keeps its room.
    orders: Vec<Order>,
    message: Message,
    attachment_lens: Vec<usize>,
    closing: Option<Closing>,
}

impl IoLoop {
    pub(crate) fn new(config: ClientConfig, net: Net, shared: Arc<Shared>) -> Self {
        Self {
            machine: Machine::new(config),
            net,
            shared,
            orders: Vec::new(),
            message: Message::default(),
            attachment_lens: Vec::new(),
            closing: None,
        }
    }

    /// Runs until the client is closed. However it ends, every task that was handed in has been
    /// told its end by then.
    pub(crate) fn run(mut self) {
        let _last = LastWords(Arc::clone(&self.shared));
        callback::enter();
        self.net.now = self.shared.now();
        self.handle(ClientEvent::Start);
        let mut is_busy = true;
        while !self.is_over() {
            match self.turn(is_busy) {
                Ok(busy) => is_busy = busy,
                Err(error) => {
                    tracing::error!(%error, "the client's IO thread ends");
                    break;
                }
            }
        }
        if self.machine.unresolved() > 0 {
            self.shared.cut_short();
        }
        self.handle(ClientEvent::Close);
        self.net.tell_ends();
    }

    fn handle(&mut self, event: ClientEvent<'_, Body>) {
        self.machine.handle(self.net.now, event, &mut self.net);
    }

    /// One turn; returns whether there was anything to do.
    fn turn(&mut self, was_busy: bool) -> TransportResult<bool> {
        if !was_busy {
            self.sleep()?;
        }
        self.net.now = self.shared.now();
        let mut is_busy = self.take_orders(false);
        let mut is_emptied = true;
        for at in 0..self.net.links.len() {
            let (read, emptied) = self.read_link(at)?;
            is_busy |= read;
            is_emptied &= emptied;
        }
        if self.machine.next_wakeup().is_some_and(|(at, _)| at <= self.net.now) {
            self.handle(ClientEvent::Wakeup { is_emptied });
        }
        self.net.tell_ends();
        self.net.flush();
        self.tell_lost_sockets();
        Ok(is_busy || !is_emptied)
    }

    /// Takes the orders that have come; with `may_sleep`, the first one after an empty take wakes
    /// the thread.
    fn take_orders(&mut self, may_sleep: bool) -> bool {
        let mut orders = std::mem::take(&mut self.orders);
        self.shared.take_orders(&mut orders, self.machine.counters(), may_sleep);
        let has_orders = !orders.is_empty();
        orders.drain(..).for_each(|order| self.take_order(order));
        self.orders = orders;
        has_orders
    }

    fn take_order(&mut self, order: Order) {
        match order {
            Order::Submit(new) => self.handle(ClientEvent::Submit(new)),
            Order::Service(name) => self.handle(ClientEvent::Service(&name)),
            Order::Cancel(request_id, how) => self.handle(ClientEvent::Cancel(request_id, how)),
            Order::Ping(sender) => {
                let token = self.net.add_ping(sender);
                self.handle(ClientEvent::Ping(token));
            }
            Order::GoOn => self.hold_if_unread(),
            Order::Close { until, awaits_results } => {
                self.closing = Some(Closing { until, awaits_results });
            }
        }
    }

    /// Sleeps until a message, an order or the machine's next wake-up.
    fn sleep(&mut self) -> TransportResult<()> {
        self.net.now = self.shared.now();
        if self.take_orders(true) {
            return Ok(());
        }
        let now = self.net.now;
        let wakeup = self.machine.next_wakeup();
        let mut timeout = wakeup.map(|(at, _)| Duration::from_nanos(at.since(now)));
        let mut shorten = |to: Duration| timeout = Some(timeout.map_or(to, |it| it.min(to)));
        if self.net.links.iter().any(|link| link.has_backlog()) {
            shorten(FULL_RETRY);
        }
        if let Some(closing) = &self.closing {
            shorten(closing.until.saturating_duration_since(Instant::now()));
        }
        let Net { poller, links, .. } = &mut self.net;
        let sockets = links.iter_mut().filter_map(|link| link.dealer.as_mut());
        wait(poller, sockets, timeout)
    }

    /// Reads a bounded number of messages; returns whether there were any, and whether none is left.
    fn read_link(&mut self, at: usize) -> TransportResult<(bool, bool)> {
        for count in 0..MESSAGES_A_TURN {
            let Some(dealer) = &mut self.net.links[at].dealer else { return Ok((count > 0, true)) };
            let mut message = std::mem::take(&mut self.message);
            let is_message = dealer.recv(&mut message)?;
            if is_message {
                self.read_message(at, &mut message);
            }
            self.message = message;
            if !is_message {
                return Ok((count > 0, true));
            }
        }
        Ok((true, false))
    }

    fn read_message(&mut self, at: usize, message: &mut Message) {
        let link = LinkId(u16::try_from(at).expect("the builder bounds the brokers"));
        if message.fault.is_some() || message.frames.is_empty() {
            self.handle(ClientEvent::Malformed(link, RefusedCode::TooLarge));
            return;
        }
        self.net.attachments.clear();
        self.net.attachments.extend(message.frames.drain(1..));
        self.attachment_lens.clear();
        self.attachment_lens.extend(self.net.attachments.iter().map(|frame| frame.len()));
        let mut reader = BatchReader::new(message.body(), &self.attachment_lens);
        let (machine, net) = (&mut self.machine, &mut self.net);
        let now = net.now;
        let mut fault = None;
        while let Some(command) = reader.next_from_broker() {
            match command {
                Ok(command) => machine.handle(now, ClientEvent::Received(link, command), net),
                Err(error) => fault = Some(error),
            }
        }
        let fault = fault.or_else(|| reader.finish().err());
        if let Some(error) = fault {
            machine.handle(now, ClientEvent::Malformed(link, error.code()), net);
        }
        self.hold_if_unread();
        self.handle(ClientEvent::BatchEnd(link));
        self.net.tell_ends();
    }

    /// While too much lies unread in handles nothing is acknowledged, so that no more comes.
    fn hold_if_unread(&mut self) {
        let unread = &self.shared.unread;
        let is_held = unread.is_too_much();
        if unread.is_held.swap(is_held, Ordering::AcqRel) == is_held {
            return;
        }
        self.handle(ClientEvent::Hold(is_held));
        // Somebody may have read it all before the flag was up.
        if is_held && !self.shared.unread.is_too_much() {
            self.shared.unread.is_held.store(false, Ordering::Release);
            self.handle(ClientEvent::Hold(false));
        }
    }

    fn tell_lost_sockets(&mut self) {
        for at in 0..self.net.links.len() {
            if std::mem::take(&mut self.net.links[at].is_lost) {
                let link = LinkId(u16::try_from(at).expect("the builder bounds the brokers"));
                self.handle(ClientEvent::SocketLost(link));
            }
        }
    }

    fn is_over(&self) -> bool {
        let Some(closing) = &self.closing else { return false };
        let is_sent = || !self.net.links.iter().any(|link| link.has_backlog());
        let is_done = if closing.awaits_results {
            self.machine.unresolved() == 0
        } else {
            self.machine.is_flushed() && is_sent()
        };
        is_done || closing.until <= Instant::now()
    }
}

fn wait<'a>(
    poller: &mut Poller,
    sockets: impl Iterator<Item = &'a mut Dealer>,
    timeout: Option<Duration>,
) -> TransportResult<()> {
    let mut sockets: Vec<&mut dyn Pollable> = sockets.map(|it| it as &mut dyn Pollable).collect();
    let _woken = poller.wait(&mut sockets, timeout, Duration::ZERO)?;
    Ok(())
}

/// Closes the inbox when the loop ends, by whatever way: orders that nobody will take are dropped,
/// and their tickets tell that the client is closed.
struct LastWords(Arc<Shared>);

impl Drop for LastWords {
    fn drop(&mut self) {
        drop(self.0.close());
    }
}

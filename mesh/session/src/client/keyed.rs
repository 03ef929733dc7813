//! Lines: requests with a key wait for the broker that is the key's, while others go past them to
//! brokers that have room.
//!
//! A request stands in the line of one broker, whose window is full or whose session is away for a
//! moment. It leaves when there is room, when the broker is lost, or when one that was lost is back
//! and may be the first for its key.

use alloc::vec::Vec;

use pinmesh_protocol::id::RequestId;

use super::Client;
use super::event::ClientOutbox;
use super::table::Place;
use crate::Time;

impl<B> Client<B> {
    /// Hands in what waits, the oldest first, as far as windows allow.
    pub(super) fn pump<O: ClientOutbox<B>>(&mut self, now: Time, outbox: &mut O) {
        loop {
            let first = self.queue.front();
            match (first, self.ready_line()) {
                (first, Some((id, at))) if first.is_none_or(|first| id < first) => {
                    self.links[at].line.pop();
                    if !self.place(now, id, outbox) {
                        self.enqueue(id);
                    }
                }
                (Some(first), _) if self.place(now, first, outbox) => {
                    self.queue.pop();
                }
                (_, _) => return,
            }
        }
    }

    /// The oldest request at the front of a line that can leave it now, and the link of that line.
    fn ready_line(&self) -> Option<(RequestId, usize)> {
        let fronts = self.links.iter().enumerate();
        let fronts = fronts.filter_map(|(at, link)| Some((link.line.front()?, at, link)));
        let is_ready = |id, link: &super::Link| match self.table.request(id) {
            Some(request) if request.place == Place::Queued => {
                link.session().is_some() && link.window.admits(request.bytes)
            }
            Some(_) | None => true,
        };
        fronts.filter(|&(id, _, link)| is_ready(id, link)).map(|(id, at, _)| (id, at)).min()
    }

    /// Sends those home who wait for brokers that are lost by now: they choose again.
    pub(super) fn leave_lost_lines(&mut self, now: Time) {
        let lost = self.links.iter_mut().filter(|link| link.is_lost(now));
        let left: Vec<RequestId> = lost.flat_map(|link| link.line.take()).collect();
        if !left.is_empty() {
            self.queue.prepend(left);
        }
    }

    /// A broker that was lost is back: whoever waits for another chooses again.
    pub(super) fn leave_all_lines(&mut self) {
        let mut all: Vec<RequestId> =
            self.links.iter_mut().flat_map(|link| link.line.take()).collect();
        if !all.is_empty() {
            all.extend(self.queue.take());
            all.sort_unstable();
            self.queue.prepend(all);
        }
    }
}

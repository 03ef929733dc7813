//! Opening, keeping and losing sessions, and what then becomes of the requests in them.

use alloc::vec::Vec;

use pinmesh_protocol::command::{
    CancelRequest, FromBroker, Heartbeat, Hello, Refused, ToBroker, Welcome,
};
use pinmesh_protocol::id::RequestId;
use pinmesh_protocol::limits::{VERSION_MAX, VERSION_MIN};
use pinmesh_protocol::status::{RefusedCode, Role};

use super::Client;
use super::event::{Cancel, ClientOutbox, CloseReason, LinkId, LinkNews, LocalEnd, Outcome};
use super::link::{AWAY_NS, Beat, Link, State};
use super::table::{Earlier, Place};
use crate::Time;

impl<B> Client<B> {
    pub(super) fn on_wakeup<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        is_emptied: bool,
        outbox: &mut O,
    ) {
        if self.is_closed {
            return;
        }
        for link in self.link_ids() {
            self.wake_link(now, link, is_emptied, outbox);
        }
        self.move_held(now, outbox);
        self.leave_lost_lines(now);
        self.retry_delayed(now);
        if self.watches_deadlines() && self.expiry_at <= now {
            self.expire(now, outbox);
        }
        self.pump(now, outbox);
    }

    fn wake_link<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        link: LinkId,
        is_emptied: bool,
        outbox: &mut O,
    ) {
        let entry = &mut self.links[usize::from(link.0)];
        match &mut entry.state {
            State::Down { retry_at } if *retry_at <= now => self.greet(now, link, outbox),
            State::Greeting { give_up_at, .. } if *give_up_at <= now && is_emptied => {
                outbox.link_news(link, LinkNews::Closed(CloseReason::Unreachable));
                self.greet(now, link, outbox);
            }
            State::Down { .. } | State::Greeting { .. } | State::Closed => {}
            State::Open(session) => match session.beat(now, is_emptied) {
                Beat::NotDue => {}
                Beat::Dead => self.close_link(now, link, CloseReason::Silent, outbox),
                Beat::Send(sequence) => {
                    let heartbeat = Heartbeat { sequence, silence_ns: None };
                    outbox.send(link, &ToBroker::Heartbeat(heartbeat));
                }
            },
        }
    }

    /// Opens a socket and says HELLO on it.
    fn greet<O: ClientOutbox<B>>(&mut self, now: Time, link: LinkId, outbox: &mut O) {
        let nonce = self.links[usize::from(link.0)].greet(now, &mut self.random);
        outbox.connect(link);
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            role: Role::Client,
            peer_id: self.config.peer_id,
            name: &self.config.name,
            nonce,
            features: 0,
        };
        outbox.send(link, &ToBroker::Hello(hello));
    }

    /// A command that came while no session is open.
    pub(super) fn on_greeting_command<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        link: LinkId,
        command: FromBroker<'_>,
        outbox: &mut O,
    ) {
        let entry = self.links.get(usize::from(link.0));
        let Some(Link { state: State::Greeting { nonce, .. }, .. }) = entry else {
            self.counters.ignored += 1;
            return;
        };
        match command {
            FromBroker::Welcome(welcome) if welcome.nonce == *nonce => {
                self.on_welcome(now, link, &welcome, outbox);
            }
            FromBroker::NoSession => self.close_link(now, link, CloseReason::NoSession, outbox),
            FromBroker::Refused(refused) => {
                let reason = CloseReason::Refused(refused.code, refused.reason);
                self.close_link(now, link, reason, outbox);
            }
            FromBroker::Goodbye => self.close_link(now, link, CloseReason::Goodbye, outbox),
            // Of a session before this one, or out of turn.
            FromBroker::Welcome(_)
            | FromBroker::Heartbeat(_)
            | FromBroker::Ack(_)
            | FromBroker::Window(_)
            | FromBroker::Service(_)
            | FromBroker::Result(_)
            | FromBroker::Accepted(_)
            | FromBroker::Fetched(_)
            | FromBroker::Progress(_)
            | FromBroker::Task(_)
            | FromBroker::Drain
            | FromBroker::Recall(_)
            | FromBroker::Cancel(_) => self.counters.ignored += 1,
        }
    }

    fn on_welcome<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        link: LinkId,
        welcome: &Welcome,
        outbox: &mut O,
    ) {
        if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
            self.refuse(now, link, RefusedCode::Version, "no such version", outbox);
            return;
        }
        let entry = &mut self.links[usize::from(link.0)];
        let is_same_epoch = entry.epoch == Some(welcome.epoch);
        let is_kept = now < entry.kept_until;
        let was_lost = entry.is_lost(now);
        entry.open(now, welcome);
        self.counters.sessions += 1;
        outbox.link_news(link, LinkNews::Opened(welcome.epoch));
        if is_same_epoch {
            if !is_kept {
                self.give_up_at_most_once(link, outbox);
            }
            self.resend_held(now, link, outbox);
        } else {
            self.resubmit_held(link, outbox);
        }
        if was_lost {
            self.leave_all_lines();
        }
        self.send_pings(now, outbox);
        self.pump(now, outbox);
    }

    fn held_by(&self, link: LinkId) -> Vec<RequestId> {
        self.table.ids(|request| request.place == Place::Held(link))
    }

    /// The broker may know all of them: the same submissions again, then the cancels. They are
    /// inside the window that they were first sent in.
    fn resend_held<O: ClientOutbox<B>>(&mut self, now: Time, link: LinkId, outbox: &mut O) {
        let held = self.held_by(link);
        for &request_id in &held {
            self.send_submit(now, request_id, link, outbox);
        }
        for request_id in held {
            let Some(request) = self.table.request(request_id) else { continue };
            if let Some(how) = request.cancel {
                let (submission, is_hard) = (request.submission, how == Cancel::Hard);
                let cancel = CancelRequest { request_id, submission, is_hard };
                outbox.send(link, &ToBroker::Cancel(cancel));
            }
        }
    }

    /// The broker may have forgotten what it held: these would run again.
    fn give_up_at_most_once<O: ClientOutbox<B>>(&mut self, link: LinkId, outbox: &mut O) {
        for request_id in self.held_by(link) {
            let is_at_most_once =
                self.table.request(request_id).is_some_and(|request| request.is_at_most_once);
            if is_at_most_once {
                self.close_held(request_id, LocalEnd::Lost, outbox);
            }
        }
    }

    /// The broker that held them is gone: they go to the front of the queue under a new submission.
    fn resubmit_held<O: ClientOutbox<B>>(&mut self, link: LinkId, outbox: &mut O) {
        let mut again = Vec::new();
        for request_id in self.held_by(link) {
            let Some(request) = self.table.request_mut(request_id) else { continue };
            if request.cancel.is_some() {
                self.close_held(request_id, LocalEnd::Cancelled, outbox);
            } else if request.is_at_most_once {
                self.close_held(request_id, LocalEnd::Lost, outbox);
            } else {
                request.place = Place::Queued;
                Self::advance(request);
                again.push(request_id);
            }
        }
        self.queue.prepend(again);
    }

    /// Ends a request that a session held which is no more, so that no window counts it.
    fn close_held<O: ClientOutbox<B>>(&mut self, id: RequestId, end: LocalEnd, outbox: &mut O) {
        if let Some(request) = self.table.request_mut(id) {
            request.place = Place::Queued;
        }
        self.finish(id, Outcome::Local(end), outbox);
    }

    /// Gives what brokers held that stay away to the others, if one of those can be asked.
    fn move_held<O: ClientOutbox<B>>(&mut self, now: Time, outbox: &mut O) {
        for link in self.link_ids() {
            if self.links[usize::from(link.0)].move_at > now {
                continue;
            }
            let has_open = self.links.iter().any(|link| link.session().is_some());
            let entry = &mut self.links[usize::from(link.0)];
            if !has_open {
                entry.move_at = now.after(AWAY_NS);
                continue;
            }
            entry.move_at = Time::NEVER;
            if let Some(epoch) = entry.epoch {
                for request_id in self.held_by(link) {
                    if let Some(request) = self.table.request_mut(request_id) {
                        let submission = request.submission;
                        request.earlier.push(Earlier { link, epoch, submission });
                    }
                }
            }
            self.resubmit_held(link, outbox);
        }
    }

    pub(super) fn on_socket_lost<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        link: LinkId,
        outbox: &mut O,
    ) {
        let entry = self.links.get(usize::from(link.0));
        if let Some(State::Greeting { .. } | State::Open(_)) = entry.map(|link| &link.state) {
            self.close_link(now, link, CloseReason::SocketLost, outbox);
        }
    }

    /// The broker does what the protocol does not allow: it is told so, and the session ends.
    pub(super) fn refuse<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        link: LinkId,
        code: RefusedCode,
        reason: &str,
        outbox: &mut O,
    ) {
        let entry = self.links.get(usize::from(link.0));
        if let Some(State::Greeting { .. } | State::Open(_)) = entry.map(|link| &link.state) {
            outbox.send(link, &ToBroker::Refused(Refused { code, reason }));
            self.close_link(now, link, CloseReason::Refused(code, reason), outbox);
        }
    }

    /// The session, or the attempt at one, is over. What it held waits for the next one.
    pub(super) fn close_link<O: ClientOutbox<B>>(
        &mut self,
        now: Time,
        link: LinkId,
        reason: CloseReason<'_>,
        outbox: &mut O,
    ) {
        let has_others = self.links.len() > 1;
        let entry = &mut self.links[usize::from(link.0)];
        // A broker that leaves will not greet us again.
        let is_leaving = matches!(reason, CloseReason::Goodbye);
        if has_others && entry.window.tasks() > 0 {
            entry.move_at = if is_leaving { now } else { now.after(AWAY_NS) };
        }
        entry.close(now, &mut self.random);
        if is_leaving {
            entry.give_up(now);
        }
        for ping in &mut self.pings {
            if ping.sent.is_some_and(|(to, _, _)| to == link) {
                ping.sent = None;
            }
        }
        outbox.disconnect(link);
        outbox.link_news(link, LinkNews::Closed(reason));
    }
}

//! Clients that submit, repeat, cancel, acknowledge, and come and go.

use std::collections::BTreeMap;

use pinmesh_core::{Span, TaskHead};
use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::id::PeerId;
use pinmesh_protocol::status::{Role, Status};

use super::world::{Owner, SERVICES, Up, World, is_end_of_session};
use crate::support::{Ask, Effect, Said, Sent};

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    is_cancelled: bool,
    /// The latest submission was answered BUSY.
    is_busy: bool,
    pub(crate) outcome: Option<(Status, Said)>,
}

impl Request {
    pub(crate) fn is_at_most_once(&self) -> bool {
        self.ask.options.as_ref().is_ok_and(|options| options.at_most_once)
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    peer_id: PeerId,
    link: Option<usize>,
    is_welcomed: bool,
    requests: BTreeMap<u64, Request>,
    next_request: u64,
    /// Results read in this session.
    taken: u64,
}

impl Client {
    pub(crate) fn new(place: usize) -> Self {
        Self {
            peer_id: PeerId([1 + place as u8; 16]),
            link: None,
            is_welcomed: false,
            requests: BTreeMap::new(),
            next_request: 1,
            taken: 0,
        }
    }

    pub(crate) fn is_welcomed_on(&self, link: usize) -> bool {
        self.is_welcomed && self.link == Some(link)
    }

    pub(crate) fn is_resolved(&self) -> bool {
        self.requests.values().all(|request| request.outcome.is_some())
    }

    pub(crate) fn has_at_most_once(&self, head: &TaskHead) -> bool {
        self.peer_id == head.client_id
            && self.requests.get(&head.request_id.0).is_some_and(Request::is_at_most_once)
    }

    fn unresolved(&self) -> Vec<u64> {
        let open = self.requests.iter().filter(|(_, request)| request.outcome.is_none());
        open.map(|(id, _)| *id).collect()
    }
}

impl World {
    pub(crate) fn act_client(&mut self) {
        let at = self.choice.below(self.clients.len());
        if self.clients[at].link.is_none() {
            return self.connect_client(at);
        }
        if !self.clients[at].is_welcomed {
            return;
        }
        match self.choice.below(40) {
            0..18 => self.submit_new(at),
            18..21 => self.repeat(at),
            21..24 => self.cancel_some(at),
            24..39 => self.acknowledge(at),
            _ if self.choice.one_in(3) => self.leave_client(at),
            _ => self.resubmit_void(at),
        }
    }

    pub(crate) fn heal_clients(&mut self) {
        for at in 0..self.clients.len() {
            if self.clients[at].link.is_none() {
                self.connect_client(at);
            } else if self.clients[at].is_welcomed {
                self.acknowledge(at);
                self.resubmit_busy(at);
            }
        }
    }

    fn connect_client(&mut self, at: usize) {
        let peer_id = self.clients[at].peer_id;
        let link = self.open(Owner::Client(at), Role::Client, peer_id);
        let client = &mut self.clients[at];
        client.link = Some(link);
        client.is_welcomed = false;
    }

    fn leave_client(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.is_welcomed = false;
        let Some(link) = client.link.take() else { return };
        if self.choice.one_in(4) {
            self.say(Some(link), Up::Goodbye);
        }
        self.cut(link);
    }

    fn submit_new(&mut self, at: usize) {
        if self.clients[at].unresolved().len() >= 35 {
            return;
        }
        let deadline_ms = self.choice.below(3_000) as u64;
        let has_deadline = self.choice.one_in(5);
        let options = TaskOptions {
            at_most_once: self.choice.one_in(4),
            accepted: self.choice.one_in(4),
            max_runtime_ns: None,
            tries_max: self.choice.one_in(5).then_some(1),
            backoff_ns: self.choice.one_in(3).then_some(50_000_000),
            ..TaskOptions::default()
        };
        let client = &mut self.clients[at];
        let request = client.next_request;
        client.next_request += 1;
        let ask = Ask {
            request,
            submission: 1,
            service: SERVICES[self.choice.below(SERVICES.len())].into(),
            priority: 1 + self.choice.below(10) as u8,
            deadline: has_deadline.then(|| Span::from_millis(deadline_ms)),
            options: Ok(options),
            bytes: self.choice.below(600) as u64,
        };
        let entry =
            Request { ask: ask.clone(), is_cancelled: false, is_busy: false, outcome: None };
        client.requests.insert(request, entry);
        self.say(self.clients[at].link, Up::Submit(ask));
    }

    /// Says one submission again: it may have been lost, for all that the client knows.
    fn repeat(&mut self, at: usize) {
        let open = self.clients[at].unresolved();
        if open.is_empty() {
            return;
        }
        let id = open[self.choice.below(open.len())];
        let is_higher = self.choice.one_in(3);
        let Some(request) = self.clients[at].requests.get_mut(&id) else { return };
        if is_higher || request.is_busy {
            request.ask.submission += 1;
            request.is_busy = false;
        }
        let ask = request.ask.clone();
        self.say(self.clients[at].link, Up::Submit(ask));
    }

    /// Tries a request again whose end says that it did not run.
    fn resubmit_void(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let void = client.requests.values_mut().find(|request| {
            let status = request.outcome.as_ref().map(|(status, _)| *status);
            matches!(status, Some(Status::Cancelled | Status::NoService))
                && !request.is_at_most_once()
        });
        let Some(request) = void else { return };
        request.outcome = None;
        request.is_cancelled = false;
        request.ask.submission += 1;
        let ask = request.ask.clone();
        self.say(self.clients[at].link, Up::Submit(ask));
    }

    fn resubmit_busy(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let mut again = Vec::new();
        for request in client.requests.values_mut().filter(|request| request.is_busy) {
            request.is_busy = false;
            request.ask.submission += 1;
            again.push(request.ask.clone());
        }
        for ask in again {
            self.say(self.clients[at].link, Up::Submit(ask));
        }
    }

    fn cancel_some(&mut self, at: usize) {
        let open = self.clients[at].unresolved();
        if open.is_empty() {
            return;
        }
        let id = open[self.choice.below(open.len())];
        let Some(request) = self.clients[at].requests.get_mut(&id) else { return };
        request.is_cancelled = true;
        let submission = request.ask.submission;
        self.say(self.clients[at].link, Up::Cancel(id, submission));
    }

    fn acknowledge(&mut self, at: usize) {
        self.say(self.clients[at].link, Up::Ack(self.clients[at].taken));
    }

    pub(crate) fn client_hears(&mut self, at: usize, link: usize, effect: Effect) {
        if self.clients[at].link != Some(link) {
            return;
        }
        if is_end_of_session(&effect) {
            let client = &mut self.clients[at];
            (client.link, client.is_welcomed) = (None, false);
            return self.cut(link);
        }
        match effect {
            Effect::Send { command: Sent::Welcome(_), .. } => self.client_welcomed(at),
            Effect::Result { head, body, .. } => {
                let client = &mut self.clients[at];
                client.taken += 1;
                let request = client.requests.get_mut(&head.request_id.0).expect("it asked for it");
                self.oracle.on_result(client.peer_id, request, &head, &body);
                let is_latest = head.submission.0 == request.ask.submission;
                match head.status {
                    Status::Busy => request.is_busy |= is_latest && request.outcome.is_none(),
                    Status::Cancelled | Status::NoService | Status::Lost if !is_latest => {}
                    status if request.outcome.is_none() => {
                        request.outcome = Some((status, body));
                        request.is_busy = false;
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn client_welcomed(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.is_welcomed = true;
        client.taken = 0;
        let link = client.link;
        for id in client.unresolved() {
            let request = self.clients[at].requests.get_mut(&id).expect("listed just now");
            if std::mem::take(&mut request.is_busy) {
                request.ask.submission += 1;
            }
            let (ask, is_cancelled) = (request.ask.clone(), request.is_cancelled);
            let submission = ask.submission;
            self.say(link, Up::Submit(ask));
            if is_cancelled {
                self.say(link, Up::Cancel(id, submission));
            }
        }
    }
}

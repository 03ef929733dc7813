//! What an operator sees of dead letters. Nothing here changes anything.

use alloc::string::String;
use alloc::vec::Vec;

use pinmesh_protocol::id::{ContentType, PeerId, Priority, RequestId};

use crate::broker::Broker;
use crate::dead::{DeadPage, DeathCause, Letter, LetterId};
use crate::event::{Body, Excerpt};
use crate::state::State;
use crate::time::Span;

/// One dead letter of a broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LetterView {
    /// Its number.
    pub letter: LetterId,
    /// The service of its task.
    pub service: String,
    /// What its client called itself; `None`: it was gone before.
    pub client: Option<String>,
    /// Its client's process.
    pub client_id: PeerId,
    /// The client's number for it.
    pub request_id: RequestId,
    /// Its urgency.
    pub priority: Priority,
    /// How its last attempt ended, and with it the task.
    pub cause: DeathCause,
    /// Starts that ended badly.
    pub tries: u32,
    /// Of those, deaths of its worker.
    pub crashes: u32,
    /// The beginning of its handler's last words, or what the mesh says.
    pub error: Excerpt,
    /// What its payload is encoded in.
    pub content_type: ContentType,
    /// Bytes of its payload.
    pub bytes: u64,
    /// How long ago it came in.
    pub received: Span,
    /// How long ago it died.
    pub died: Span,
    /// The letter of which it was a replay.
    pub replay_of: Option<LetterId>,
}

impl<B: Body> Broker<B> {
    /// The letters of a page, the oldest first, and where the next page begins; `None`: this was the
    /// last one. Takes time linear in what the page looks at.
    pub fn letters_page(&self, page: DeadPage<'_>) -> (Vec<LetterView>, Option<LetterId>) {
        let (letters, next) = self.state.dead.page(page);
        (letters.map(|(id, letter)| letter_view(&self.state, id, letter)).collect(), next)
    }

    /// The letter of this number, with its task's payload.
    pub fn letter(&self, letter: LetterId) -> Option<(LetterView, &B)> {
        let found = self.state.dead.get(letter)?;
        Some((letter_view(&self.state, letter, found), &found.body))
    }
}

fn letter_view<B: Body>(state: &State<B>, id: LetterId, letter: &Letter<B>) -> LetterView {
    LetterView {
        letter: id,
        service: String::from(&*letter.service),
        client: letter.client.as_deref().map(String::from),
        client_id: letter.client_id,
        request_id: letter.request_id,
        priority: letter.priority,
        cause: letter.cause,
        tries: letter.tries,
        crashes: letter.crashes,
        error: letter.error.clone(),
        content_type: letter.body.excerpt(0).content_type,
        bytes: letter.body.payload_bytes(),
        received: state.now.since(letter.received_at),
        died: state.now.since(letter.died_at),
        replay_of: letter.replay_of,
    }
}

//! Outcomes by idempotency key, from whatever client the task came.

use std::sync::Arc;

use pinmesh_protocol::id::{ContentType, Priority};
use pinmesh_protocol::limits::KEY_BYTES_MAX;
use pinmesh_protocol::rendezvous;
use pinmesh_session::Time;
use pinmesh_session::client::{FetchOf, NewRequest};
use serde::de::DeserializeOwned;

use crate::callback;
use crate::client::Client;
use crate::completion::{Slot, Ticket};
use crate::handle::{Decoder, Handle};
use crate::payload::{Bytes, Input, decode, keep_raw};
use crate::shared::{Body, NO_SERVICE};
use crate::updates::Listener;
use crate::{Error, Result};

impl Client {
    /// The outcome of the task that has this [idempotency key](crate::Task::idempotency_key), as soon
    /// as the task has ended. It never makes a task run. Of several brokers the key's is asked first,
    /// then the others. Cancelling the handle takes the request back and leaves the task alone.
    ///
    /// The handle tells [`Error::UnknownKey`] where no broker that can be asked knows the key, or how
    /// else the task ended.
    ///
    /// # Errors
    /// The key is out of its range, or the client is closed or full.
    pub fn fetch<Out: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Handle<Out>> {
        self.fetch_as(key.as_ref(), true, decode)
    }

    /// As [`fetch`](Self::fetch), but a task that has not ended is not waited for: the handle tells
    /// [`Error::NotEnded`].
    ///
    /// # Errors
    /// As there.
    pub fn try_fetch<Out: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Handle<Out>> {
        self.fetch_as(key.as_ref(), false, decode)
    }

    /// As [`fetch`](Self::fetch), with the raw output.
    ///
    /// # Errors
    /// As there.
    pub fn fetch_raw(&self, key: impl AsRef<[u8]>) -> Result<Handle<Bytes>> {
        self.fetch_as(key.as_ref(), true, keep_raw)
    }

    /// As [`try_fetch`](Self::try_fetch), with the raw output.
    ///
    /// # Errors
    /// As there.
    pub fn try_fetch_raw(&self, key: impl AsRef<[u8]>) -> Result<Handle<Bytes>> {
        self.fetch_as(key.as_ref(), false, keep_raw)
    }

    fn fetch_as<T>(&self, key: &[u8], waits: bool, decoder: Decoder<T>) -> Result<Handle<T>> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            let remedy = format!("must have from 1 to {KEY_BYTES_MAX} bytes");
            let key = format!("`{}`", String::from_utf8_lossy(key));
            return Err(Error::invalid("key", key, &remedy));
        }
        let input = Input::new(Vec::new())?;
        let slot = Arc::new(Slot::new());
        let new = NewRequest {
            body: Body {
                input,
                bytes: 0,
                service: NO_SERVICE,
                started_at: self.shared.now(),
                ticket: Ticket::to_slot(Arc::clone(&slot)),
                listener: Listener::None,
                accepted: None,
            },
            bytes: 0,
            service: NO_SERVICE,
            priority: Priority::default(),
            deadline: Time::NEVER,
            start_at: None,
            content_type: ContentType::RAW,
            options: None,
            is_at_most_once: false,
            shows_busy: false,
            key: Some(rendezvous::hash(key)),
            keeps_to_key: false,
            fetch: Some(FetchOf { key: key.into(), waits }),
        };
        let waits_until = (!callback::is_inside()).then_some(None);
        let request_id = self.shared.submit(new, waits_until)?;
        Ok(Handle::new(slot, Arc::clone(&self.shared), request_id, decoder, None))
    }
}

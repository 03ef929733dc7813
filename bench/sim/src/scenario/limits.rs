//! Limits and times that are not as by default.

use pinmesh_core::{CoreConfig, Span};

use super::words::Words;
use crate::shape::Shape;

/// Reads one limit and sets it. `own`: of one broker alone.
pub(super) fn limit(words: &mut Words<'_>, core: &mut CoreConfig) -> Result<(), String> {
    if words.take("heartbeat") {
        core.heartbeat = Span(words.duration()?);
    } else if words.take("lease") {
        core.lease = Span(words.duration()?);
    } else if words.take("grace") {
        core.grace = Span(words.duration()?);
    } else if words.take("service wait") {
        core.service_wait = Span(words.duration()?);
    } else if words.take("kept") {
        core.client_kept = Span(words.duration()?);
    } else if words.take("retry") {
        core.retry_after = Span(words.duration()?);
    } else if words.take("memory") {
        core.memory_bytes_max = words.bytes()?;
    } else if words.take("client window") {
        core.client_window_tasks = words.number()? as u32;
        words.need("tasks")?;
    } else {
        let known = "heartbeat, lease, grace, service wait, kept, retry, memory or client window";
        return Err(words.unknown(known));
    }
    Ok(())
}

/// The same, or one of the workers and supervisors.
pub(super) fn fleet_limit(words: &mut Words<'_>, shape: &mut Shape) -> Result<(), String> {
    if words.take("window") {
        shape.window.0 = words.number()? as u32;
        words.need("tasks")
    } else if words.take("stall") {
        shape.supervisor.stall_max = words.duration()?;
        Ok(())
    } else if words.take("drain") {
        shape.supervisor.drain = words.duration()?;
        Ok(())
    } else {
        limit(words, &mut shape.core)
    }
}

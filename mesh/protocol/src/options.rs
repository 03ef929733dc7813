//! What a client may ask of one task beyond its service, priority and deadline.

/// Options of a task, a MessagePack map on the wire; a key that is absent keeps the default.
///
/// A broker refuses a task with a key that it does not know (status REFUSED): an option that is
/// silently ignored would be a promise silently broken.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct TaskOptions {
    /// Run at most once: after a loss the request ends LOST instead of running again.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_false"))]
    pub at_most_once: bool,
    /// Ask for ACCEPTED.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_false"))]
    pub accepted: bool,
    /// The longest that one attempt may run, nanoseconds; the broker's default where absent.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub max_runtime_ns: Option<u64>,
    /// Starts that may end badly before the task ends for good, 1 or more.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub tries_max: Option<u32>,
}

#[cfg(feature = "serde")]
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

impl TaskOptions {
    /// Whether every option has its default; such options travel as nil.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

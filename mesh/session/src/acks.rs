//! Kept until acknowledged: what counts 1, 2, 3 ... within a session and is sent again in the next.

use alloc::collections::VecDeque;

/// Ends that were pushed and not yet acknowledged, in order.
///
/// The caller bounds it: a worker by its window, a supervisor by its slots.
///
/// ```
/// use pinmesh_session::acks::Acks;
///
/// let mut acks = Acks::new();
/// acks.push("a");
/// acks.push("b");
/// assert!(acks.on_ack(1));
/// acks.restart(); // a new session: "b" goes out again, and is number 1 there
/// assert_eq!(acks.iter().copied().collect::<Vec<_>>(), ["b"]);
/// assert!(acks.on_ack(1) && acks.is_empty());
/// ```
#[derive(Debug)]
pub struct Acks<T> {
    kept: VecDeque<T>,
    /// How many of this session's numbers are acknowledged.
    acknowledged: u64,
}

impl<T> Default for Acks<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Acks<T> {
    /// Nothing kept, at the start of a session.
    pub const fn new() -> Self {
        Self { kept: VecDeque::new(), acknowledged: 0 }
    }

    /// Keeps one; it has the next number of the session.
    pub fn push(&mut self, item: T) {
        self.kept.push_back(item);
    }

    /// The peer has taken the first `n` of this session. `false`: it acknowledges what was never
    /// sent, or takes an acknowledgement back, and is not to be trusted; nothing has changed then.
    pub fn on_ack(&mut self, n: u64) -> bool {
        self.take(n, |_| ())
    }

    /// Like [`Acks::on_ack`]; hands each acknowledged item to `taken`, in order.
    pub fn take(&mut self, n: u64, mut taken: impl FnMut(T)) -> bool {
        let Some(count) = n.checked_sub(self.acknowledged) else { return false };
        if count > self.kept.len() as u64 {
            return false;
        }
        self.kept.drain(..count as usize).for_each(&mut taken);
        self.acknowledged = n;
        true
    }

    /// A new session: what is kept counts 1, 2, 3 ... again, and the caller sends it again.
    pub fn restart(&mut self) {
        self.acknowledged = 0;
    }

    /// What is kept, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.kept.iter()
    }

    /// What is kept, in order, to be changed.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut T> {
        self.kept.iter_mut()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn an_ack_names_a_total_and_drops_that_many_from_the_front() {
        let mut acks = Acks::new();
        (1..=5).for_each(|n| acks.push(n));
        assert!(acks.on_ack(2));
        let mut taken = Vec::new();
        assert!(acks.take(4, |n| taken.push(n)));
        assert_eq!(taken, [3, 4]);
        assert_eq!(acks.len(), 1);
    }

    #[test]
    fn an_ack_of_more_than_was_sent_or_less_than_before_changes_nothing() {
        let mut acks = Acks::new();
        (1..=3).for_each(|n| acks.push(n));
        assert!(acks.on_ack(2));
        assert!(!acks.on_ack(4));
        assert!(!acks.on_ack(1));
        assert!(!acks.on_ack(u64::MAX));
        assert!(acks.on_ack(2));
        assert_eq!(acks.len(), 1);
    }

    #[test]
    fn a_new_session_counts_from_one_again() {
        let mut acks = Acks::new();
        (1..=4).for_each(|n| acks.push(n));
        assert!(acks.on_ack(1));
        acks.restart();
        acks.push(5);
        assert_eq!(acks.iter().copied().collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert!(acks.on_ack(3));
        assert_eq!(acks.iter().copied().collect::<Vec<_>>(), [5]);
    }
}

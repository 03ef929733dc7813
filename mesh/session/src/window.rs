//! Absolute windows, in tasks and bytes: "you may have at most this many unfinished with me".

/// What a window allows, and what is unfinished inside it.
///
/// A shrink binds later sends only, so more may be unfinished than the window allows. A window of at
/// least one task always takes one, however long: a payload that was admitted elsewhere must never
/// wait for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Window {
    tasks_max: u32,
    bytes_max: u64,
    tasks: u32,
    bytes: u64,
}

impl Window {
    /// An empty window of that size.
    pub const fn new(tasks_max: u32, bytes_max: u64) -> Self {
        Self { tasks_max, bytes_max, tasks: 0, bytes: 0 }
    }

    /// Sets the size. Idempotent: what is unfinished stays.
    pub const fn resize(&mut self, tasks_max: u32, bytes_max: u64) {
        self.tasks_max = tasks_max;
        self.bytes_max = bytes_max;
    }

    /// Whether a task with a payload of `bytes` fits now.
    pub const fn admits(&self, bytes: u64) -> bool {
        if self.tasks == 0 {
            return self.tasks_max > 0;
        }
        self.tasks < self.tasks_max && self.bytes.saturating_add(bytes) <= self.bytes_max
    }

    /// Counts a task in. The caller has asked [`Window::admits`], or resends what was in before.
    pub const fn take(&mut self, bytes: u64) {
        self.tasks += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Counts a task out that was counted in with the same `bytes`.
    pub const fn give_back(&mut self, bytes: u64) {
        assert!(self.tasks > 0, "more tasks ended than were counted in");
        assert!(self.bytes >= bytes, "more bytes ended than were counted in");
        self.tasks -= 1;
        self.bytes -= bytes;
    }

    /// Counts everything out: the session that held it is gone.
    pub const fn clear(&mut self) {
        self.tasks = 0;
        self.bytes = 0;
    }

    /// Unfinished tasks.
    pub const fn tasks(&self) -> u32 {
        self.tasks
    }

    /// Bytes of payload of the unfinished tasks.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The most tasks.
    pub const fn tasks_max(&self) -> u32 {
        self.tasks_max
    }

    /// The most bytes.
    pub const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn a_window_is_full_at_its_tasks_or_its_bytes() {
        let mut window = Window::new(2, 100);
        window.take(60);
        assert!(window.admits(40));
        assert!(!window.admits(41));
        window.take(40);
        assert!(!window.admits(0));
        window.give_back(60);
        assert!(window.admits(60));
        assert_eq!((window.tasks(), window.bytes()), (1, 40));
    }

    #[test]
    fn an_empty_window_takes_one_task_of_any_length() {
        assert!(Window::new(1, 10).admits(u64::MAX));
        assert!(!Window::new(0, 10).admits(0));
    }

    #[test]
    fn a_shrink_keeps_what_is_unfinished_and_binds_later_tasks() {
        let mut window = Window::new(10, 1000);
        (0..5).for_each(|_| window.take(10));
        window.resize(3, 1000);
        assert_eq!(window.tasks(), 5);
        assert!(!window.admits(1));
        (0..3).for_each(|_| window.give_back(10));
        assert!(window.admits(1));
    }
}

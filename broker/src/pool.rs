//! Boxes for small bodies, used again: a task in steady state costs no allocation.
//!
//! One pool a thread. A box goes back to the pool of the thread that drops it.

use std::cell::RefCell;

/// Sizes of boxes, bytes. A body larger than the last has a box of its own, which is freed.
const CLASSES: [usize; 8] = [64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192];
/// Bytes that wait for use a class, at most; what is beyond is freed.
const IDLE_BYTES_MAX: usize = 8 << 20;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool::new()) };
}

/// A box with at least as many bytes as were asked for; what is in it is what was in it last.
pub(crate) fn take(bytes: usize) -> Box<[u8]> {
    match class_for(bytes) {
        Some(class) => POOL.with_borrow_mut(|pool| pool.take(class)),
        None => vec![0; bytes].into_boxed_slice(),
    }
}

/// Gives a box back.
pub(crate) fn put(bytes: Box<[u8]>) {
    let Some(class) = class_for(bytes.len()).filter(|&class| CLASSES[class] == bytes.len()) else {
        return;
    };
    // At the thread's end the pool may be gone before the last body: then the box is freed.
    let _ = POOL.try_with(|pool| {
        if let Ok(mut pool) = pool.try_borrow_mut() {
            pool.put(class, bytes);
        }
    });
}

/// Boxes of this thread that had to be allocated so far.
pub(crate) fn misses() -> u64 {
    POOL.with_borrow(|pool| pool.misses)
}

#[inline]
fn class_for(bytes: usize) -> Option<usize> {
    const SMALLEST: u32 = CLASSES[0].trailing_zeros();
    let class = (bytes.max(CLASSES[0]).next_power_of_two().trailing_zeros() - SMALLEST) as usize;
    (class < CLASSES.len()).then_some(class)
}

struct Pool {
    idle: [Vec<Box<[u8]>>; CLASSES.len()],
    misses: u64,
}

impl Pool {
    const fn new() -> Self {
        Self { idle: [const { Vec::new() }; CLASSES.len()], misses: 0 }
    }

    #[inline]
    fn take(&mut self, class: usize) -> Box<[u8]> {
        match self.idle[class].pop() {
            Some(bytes) => bytes,
            None => {
                self.misses += 1;
                vec![0; CLASSES[class]].into_boxed_slice()
            }
        }
    }

    #[inline]
    fn put(&mut self, class: usize, bytes: Box<[u8]>) {
        let idle = &mut self.idle[class];
        if idle.len() < IDLE_BYTES_MAX / CLASSES[class] {
            idle.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_large_enough_and_comes_from_its_class() {
        for (bytes, got) in [(0, 64), (64, 64), (65, 128), (4_096, 4_096), (8_192, 8_192)] {
            assert_eq!(take(bytes).len(), got);
        }
        assert_eq!(take(8_193).len(), 8_193);
    }

    #[test]
    fn a_box_that_was_given_back_is_used_again() {
        let before = misses();
        for _ in 0..10 {
            put(take(100));
        }
        assert_eq!(misses(), before + 1);
    }

    #[test]
    fn idle_boxes_are_bounded() {
        let all: Vec<_> = (0..IDLE_BYTES_MAX / 8_192 + 10).map(|_| take(8_192)).collect();
        all.into_iter().for_each(put);
        let idle = POOL.with_borrow(|pool| pool.idle[7].len());
        assert_eq!(idle, IDLE_BYTES_MAX / 8_192);
    }
}

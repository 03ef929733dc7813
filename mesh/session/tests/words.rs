//! What a worker and its supervisor pack into words, and windows: every state, every bound.

use pinmesh_protocol::id::{AttemptId, Dispatch, Epoch, TaskId};
use pinmesh_session::slots::{
    AttemptWords, BrokerIndex, Lease, REFUSAL_BUCKETS, RunningWord, SLOTS, SlotState, SlotWord,
};
use pinmesh_session::{Time, Window};

const BROKER: BrokerIndex = BrokerIndex(0xabcd);

/// A slot in each state, all of the same attempt.
fn slots() -> [SlotWord; 5] {
    let waiting = SlotWord::FREE.publish(BROKER).expect("a free slot takes an attempt");
    let claimed = waiting.claim().expect("what waits can start");
    let ended = claimed.end().expect("what started can end");
    let recalled = waiting.recall().expect("what waits can go back");
    [recalled.free(), waiting, claimed, ended, recalled]
}

#[test]
fn each_state_is_read_back_and_allows_only_what_follows_from_it() {
    use SlotState::{Claimed, Ended, Free, Recalled, Waiting};
    for (slot, state) in slots().into_iter().zip([Free, Waiting, Claimed, Ended, Recalled]) {
        let slot = SlotWord::from_bits(slot.to_bits());
        assert_eq!(slot.state(), state);
        let after = [slot.publish(BROKER), slot.claim(), slot.end(), slot.recall(), slot.cancel()];
        let states = after.map(|next| next.map(SlotWord::state));
        let want = match state {
            Free => [Some(Waiting), None, None, None, None],
            Waiting => [None, Some(Claimed), None, Some(Recalled), None],
            Claimed => [None, None, Some(Ended), None, Some(Claimed)],
            Ended | Recalled => [None; 5],
        };
        assert_eq!(states, want, "{state:?}");
        assert_eq!(slot.free().state(), Free);
    }
}

#[test]
fn a_slot_keeps_its_broker_and_generation_through_every_state() {
    for slot in slots() {
        assert_eq!((slot.broker(), slot.generation()), (BROKER, 1));
        assert!(!slot.is_cancelled());
    }
    let cancelled = slots()[2].cancel().expect("what runs can be cancelled");
    assert_eq!((cancelled.broker(), cancelled.generation()), (BROKER, 1));
    assert_eq!(cancelled.cancel(), Some(cancelled), "twice is once");
    assert!(!cancelled.free().is_cancelled());
}

#[test]
fn the_generation_wraps_and_states_that_nobody_wrote_count_as_free() {
    let last = SlotWord::from_bits(u64::from(u32::MAX) << 32);
    let first = last.publish(BrokerIndex(0)).expect("it is free");
    assert_eq!((first.generation(), first.state()), (0, SlotState::Waiting));
    assert_eq!(SlotWord::from_bits(5).state(), SlotState::Free);
    assert_eq!(SlotWord::from_bits(0xff).state(), SlotState::Free);
}

#[test]
fn a_running_word_names_its_slot_from_the_first_to_the_last() {
    let claimed = slots()[2];
    for index in [0, 1, SLOTS - 1] {
        let word = RunningWord::from_bits(RunningWord::new(index, claimed).to_bits());
        assert_eq!(word.index(), Some(index));
        assert!(word.is_running(claimed));
    }
    assert_eq!(RunningWord::new(SLOTS, claimed).index(), None, "no page has it");
    assert_eq!(RunningWord::NONE.index(), None);
    for (slot, is_running) in slots().into_iter().zip([false, false, true, false, false]) {
        assert_eq!(RunningWord::new(0, claimed).is_running(slot), is_running, "{slot:?}");
    }
}

#[test]
fn an_attempt_survives_its_words_and_a_dispatch_of_zero_is_none() {
    let attempt = |epoch, task, dispatch| AttemptId {
        epoch: Epoch(epoch),
        task: TaskId(task),
        dispatch: Dispatch(dispatch),
    };
    for attempt in [attempt(1, 2, 3), attempt(u32::MAX, 0, 1), attempt(0, u64::MAX, u32::MAX)] {
        let words = AttemptWords::new(attempt);
        assert_eq!(words.attempt(), Some(attempt));
        assert!(words.bucket() < REFUSAL_BUCKETS);
    }
    assert_eq!(AttemptWords::new(attempt(7, 8, 0)).attempt(), None);
    // Dispatches and epochs of one task do not all fall into one bucket.
    let buckets: std::collections::BTreeSet<_> =
        (1..=64).map(|n| AttemptWords::new(attempt(n, 5, n)).bucket()).collect();
    assert!(buckets.len() > 32, "{}", buckets.len());
}

#[test]
fn a_lease_until_the_beginning_of_time_is_none() {
    let lease = Lease { epoch: Epoch(1), until: Time(0), term: 3 };
    assert!(!lease.is_given());
    assert!(Lease { until: Time(1), ..lease }.is_given());
}

#[test]
fn a_window_says_what_it_allows_and_what_is_in_it() {
    let mut window = Window::new(3, 100);
    assert_eq!((window.tasks_max(), window.bytes_max()), (3, 100));
    window.take(7);
    window.take(5);
    assert_eq!((window.tasks(), window.bytes()), (2, 12));
    window.resize(5, 50);
    assert_eq!((window.tasks_max(), window.bytes_max()), (5, 50));
    assert_eq!((window.tasks(), window.bytes()), (2, 12));
    assert!(window.admits(38) && !window.admits(39));
    window.clear();
    assert_eq!((window.tasks(), window.bytes()), (0, 0));
    assert!(window.admits(u64::MAX), "one task always fits");
    window.take(u64::MAX);
    assert!(!window.admits(1), "the sum of bytes does not wrap");
    window.take(1);
    assert_eq!(window.bytes(), u64::MAX);
}

#[test]
#[should_panic(expected = "more tasks ended than were counted in")]
fn a_window_gives_back_no_task_that_it_did_not_take() {
    Window::new(1, 1).give_back(0);
}

#[test]
#[should_panic(expected = "more bytes ended than were counted in")]
fn a_window_gives_back_no_byte_that_it_did_not_take() {
    let mut window = Window::new(1, 1);
    window.take(1);
    window.give_back(2);
}

#[test]
fn times_saturate_at_both_ends() {
    assert_eq!(Time(5).after(7), Time(12));
    assert_eq!(Time(5).after(u64::MAX), Time::NEVER);
    assert_eq!((Time(12).since(Time(5)), Time(5).since(Time(12))), (7, 0));
}

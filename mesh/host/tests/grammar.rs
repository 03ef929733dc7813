//! Properties of the CPU grammar, over arbitrary sets and arbitrary text.

use pinmesh_host::{CPUS_MAX, CpuId, CpuSelection, CpuSet};
use proptest::{collection, prelude::*};

fn cpu() -> impl Strategy<Value = CpuId> {
    (0..CPUS_MAX).prop_map(|id| CpuId::new(id).expect("below CPUS_MAX"))
}

/// Sparse sets, and sets of few neighbours, where ranges meet.
fn cpus() -> impl Strategy<Value = CpuSet> {
    let dense = (0_u32..16).prop_map(|id| CpuId::new(id).expect("below CPUS_MAX"));
    prop_oneof![
        collection::vec(cpu(), 1..200).prop_map(CpuSet::from_iter),
        collection::vec(dense, 1..16).prop_map(CpuSet::from_iter),
    ]
}

proptest! {
    #[test]
    fn what_is_displayed_parses_to_the_same_set(cpus in cpus()) {
        prop_assert_eq!(cpus.to_string().parse::<CpuSet>().unwrap(), cpus.clone());
        let selection = CpuSelection::Ids(cpus);
        prop_assert_eq!(selection.to_string().parse::<CpuSelection>().unwrap(), selection);
    }

    #[test]
    fn a_listing_in_any_order_is_the_same_set(ids in collection::vec(cpu(), 1..200)) {
        let listing = ids.iter().map(CpuId::to_string).collect::<Vec<_>>().join(",");
        prop_assert_eq!(listing.parse::<CpuSet>().unwrap(), CpuSet::from_iter(ids));
    }

    #[test]
    fn a_range_holds_both_its_ends(first in 0..CPUS_MAX, length in 0..CPUS_MAX) {
        let last = (first + length).min(CPUS_MAX - 1);
        let cpus: CpuSet = format!("{first}-{last}").parse().unwrap();
        prop_assert_eq!(cpus.len() as u32, last - first + 1);
        prop_assert_eq!(cpus.iter().next().map(u32::from), Some(first));
        prop_assert_eq!(cpus.iter().last().map(u32::from), Some(last));
    }

    #[test]
    fn no_text_panics_and_what_parses_is_canonical_when_displayed(text in "[0-9,\\- a-z]{0,24}") {
        if let Ok(cpus) = text.parse::<CpuSet>() {
            prop_assert!(!cpus.is_empty());
            let canonical = cpus.to_string();
            prop_assert_eq!(canonical.parse::<CpuSet>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        if let Err(refusal) = text.parse::<CpuSelection>() {
            prop_assert!(!refusal.to_string().is_empty());
        }
    }

    #[test]
    fn workers_get_cpus_of_the_set_and_each_its_own(cpus in cpus(), workers in 1_usize..300) {
        let placed = cpus.cycle(workers).unwrap();
        prop_assert_eq!(placed.len(), workers);
        prop_assert!(placed.iter().all(|&cpu| cpus.contains(cpu)));
        match cpus.first(workers) {
            Ok(first) => prop_assert_eq!(first, CpuSet::from_iter(placed)),
            Err(_) => prop_assert!(workers > cpus.len()),
        }
    }
}

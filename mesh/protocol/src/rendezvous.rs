//! Which of several brokers a task with a key goes to: highest random weight (Thaler and Ravishankar,
//! "Using name-based mappings to increase hit rates", 1998).
//!
//! Each broker has a weight for each key, and the one with the greatest is the key's. Clients agree
//! without talking to each other, and a broker that goes takes nobody's keys along but its own. The
//! arithmetic is a part of the wire, so that clients in other languages agree too: PROTOCOL.md.
//!
//! ```
//! use pinmesh_protocol::rendezvous::{hash, weight};
//!
//! let brokers = ["tcp://10.0.0.1:5555", "tcp://10.0.0.2:5555"];
//! let weights = brokers.map(|broker| weight(hash(b"customer-42"), hash(broker.as_bytes())));
//! assert!(weights[1] > weights[0], "as in the example of PROTOCOL.md");
//! ```

/// FNV-1a with 64 bits (Fowler, Noll, Vo): of a key, or of the text of a broker's endpoint.
pub const fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut rest = bytes;
    while let [byte, after @ ..] = rest {
        hash = (hash ^ *byte as u64).wrapping_mul(0x0100_0000_01b3);
        rest = after;
    }
    hash
}

/// The weight of a broker for a key, given the [`hash`] of each: SplitMix64's output for what both
/// come to (Steele, Lea, Flood 2014). Equal only for brokers with equal hashes.
pub const fn weight(key: u64, broker: u64) -> u64 {
    let mut z = (key ^ broker).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

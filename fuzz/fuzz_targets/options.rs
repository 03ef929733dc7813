//! Options and payloads of users: read or refused, and options are written and read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinmesh_protocol::{TaskOptions, payload};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(options) = TaskOptions::decode(bytes) {
        assert_eq!(TaskOptions::decode(&options.encode()), Ok(options));
    }
    let _ = payload::from_msgpack::<serde_json::Value>(bytes);
});

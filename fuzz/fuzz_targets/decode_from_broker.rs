//! What a peer reads: a message is read or refused, and what was read is written and read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::codec::write_from_broker;

fuzz_target!(|input: (&[u8], Vec<u32>)| {
    let (bytes, lens) = input;
    let lens: Vec<usize> = lens.into_iter().map(|len| len as usize % 1_100_000).collect();
    let mut reader = BatchReader::new(bytes, &lens);
    while let Some(next) = reader.next_from_broker() {
        let Ok(command) = next else { break };
        let mut again = Vec::new();
        write_from_broker(&mut again, &command);
        assert_eq!(BatchReader::new(&again, &lens).next_from_broker(), Some(Ok(command)));
    }
    let _ = reader.finish();
});

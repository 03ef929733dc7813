//! Encoded histograms, decoded with bounds: `hdrhistogram` reserves what the bytes ask for, up to
//! 4 GB, before it looks at how many there are.

use std::io::Read;

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::ZlibDecoder;
use hdrhistogram::{Histogram, serialization::Deserializer};

/// First word of a histogram that is deflated.
const COOKIE_DEFLATED: u32 = 0x1c84_9314;
/// Cookie, length of the counts, offset, digits, lowest, highest, ratio.
const HEADER_BYTES: usize = 40;
/// Of the counts of five digits and 60 s, at nine bytes each, well below this.
const INFLATED_BYTES_MAX: u64 = 64 << 20;

/// The histogram that is written in base64. The error says what is wrong with it.
pub(crate) fn histogram(base64: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD.decode(base64).map_err(|error| format!("base64: {error}"))?;
    let inflated;
    let plain: &[u8] = match bytes.split_first_chunk::<8>() {
        Some(([a, b, c, d, ..], deflated))
            if u32::from_be_bytes([*a, *b, *c, *d]) == COOKIE_DEFLATED =>
        {
            inflated = inflate(deflated)?;
            &inflated
        }
        _ => &bytes,
    };
    check_length(plain)?;
    let mut input = plain;
    Deserializer::new().deserialize(&mut input).map_err(|error| format!("histogram: {error}"))
}

fn inflate(deflated: &[u8]) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    ZlibDecoder::new(deflated)
        .take(INFLATED_BYTES_MAX)
        .read_to_end(&mut plain)
        .map_err(|error| format!("deflate: {error}"))?;
    Ok(plain)
}

fn check_length(plain: &[u8]) -> Result<(), String> {
    let (Some(header), Some([_, _, _, _, a, b, c, d])) =
        (plain.get(..HEADER_BYTES), plain.first_chunk::<8>())
    else {
        return Err(format!("histogram: {} bytes, its header alone has 40", plain.len()));
    };
    let counts_bytes = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    if plain.len() - header.len() < counts_bytes {
        return Err(format!("histogram: {counts_bytes} bytes of counts, not all there"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_before_memory_is_reserved() {
        let mut bytes = vec![0_u8; HEADER_BYTES];
        bytes[..4].copy_from_slice(&0x1c84_9303_u32.to_be_bytes());
        bytes[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(histogram(&STANDARD.encode(&bytes)).unwrap_err().contains("not all there"));
        assert!(histogram("").unwrap_err().contains("0 bytes"));
        assert!(histogram("!").unwrap_err().contains("base64"));
        assert!(histogram(&STANDARD.encode([0x1c, 0x84, 0x93, 0x14, 0, 0, 0, 9, 1])).is_err());
    }
}

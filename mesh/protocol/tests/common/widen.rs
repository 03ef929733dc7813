//! The same MessagePack values in other widths.

use super::XorShift;

/// Writes every value of `bytes` again: each integer and each length in a width drawn from those
/// that can hold it, signed ones for small positive numbers included.
pub fn widen(bytes: &[u8], random: &mut XorShift) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        value(&mut rest, &mut out, random);
    }
    out
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(len);
    *rest = left;
    taken
}

fn number(rest: &mut &[u8], len: usize) -> u64 {
    take(rest, len).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn value(rest: &mut &[u8], out: &mut Vec<u8>, random: &mut XorShift) {
    let first = take(rest, 1)[0];
    match first {
        0..=0x7f => unsigned(first.into(), out, random),
        0x80..=0x8f => {
            let len = u64::from(first & 0x0f);
            length(len, &[0x0f, 0xffff, 0xffff_ffff], &[0x80, 0xde, 0xdf], out, random);
            (0..2 * len).for_each(|_| value(rest, out, random));
        }
        0x90..=0x9f => array((first & 0x0f).into(), rest, out, random),
        0xdc => array(number(rest, 2), rest, out, random),
        0xa0..=0xbf => text((first & 0x1f).into(), rest, out, random),
        0xd9 => text(number(rest, 1), rest, out, random),
        0xda => text(number(rest, 2), rest, out, random),
        0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => out.push(first),
        0xc4..=0xc6 => {
            let len = number(rest, 1 << (first - 0xc4));
            length(len, &[0xff, 0xffff, 0xffff_ffff], &[0xc4, 0xc5, 0xc6], out, random);
            out.extend_from_slice(take(rest, len as usize));
        }
        0xcc..=0xcf => {
            let number = number(rest, 1 << (first - 0xcc));
            unsigned(number, out, random);
        }
        0xd0..=0xd3 => {
            out.push(first);
            out.extend_from_slice(take(rest, 1 << (first - 0xd0)));
        }
        _ => panic!("the codec does not write marker {first:02x}"),
    }
}

fn array(len: u64, rest: &mut &[u8], out: &mut Vec<u8>, random: &mut XorShift) {
    length(len, &[0x0f, 0xffff, 0xffff_ffff], &[0x90, 0xdc, 0xdd], out, random);
    (0..len).for_each(|_| value(rest, out, random));
}

fn text(len: u64, rest: &mut &[u8], out: &mut Vec<u8>, random: &mut XorShift) {
    if len <= 0x1f && random.below(2) == 0 {
        out.push(0xa0 | len as u8);
    } else {
        length(len, &[0xff, 0xffff, 0xffff_ffff], &[0xd9, 0xda, 0xdb], out, random);
    }
    out.extend_from_slice(take(rest, len as usize));
}

/// A marker and a length; `markers[0]` holds the length itself where it is a fix marker.
fn length(len: u64, most: &[u64; 3], markers: &[u8; 3], out: &mut Vec<u8>, random: &mut XorShift) {
    let class = pick(random, (0..3).filter(|class| len <= most[*class]));
    if class == 0 && most[0] == 0x0f {
        return out.push(markers[0] | len as u8);
    }
    out.push(markers[class]);
    let width = if most[0] == 0x0f { [0, 2, 4][class] } else { [1, 2, 4][class] };
    out.extend_from_slice(&len.to_be_bytes()[8 - width..]);
}

fn unsigned(number: u64, out: &mut Vec<u8>, random: &mut XorShift) {
    const MOST: [u64; 9] = [
        0x7f,
        u8::MAX as u64,
        u16::MAX as u64,
        u32::MAX as u64,
        u64::MAX,
        i8::MAX as u64,
        i16::MAX as u64,
        i32::MAX as u64,
        i64::MAX as u64,
    ];
    let form = pick(random, (0..9).filter(|form| number <= MOST[*form]));
    let (marker, width) = match form {
        0 => return out.push(number as u8),
        1..=4 => (0xcc + form - 1, 1 << (form - 1)),
        _ => (0xd0 + form - 5, 1 << (form - 5)),
    };
    out.push(marker as u8);
    out.extend_from_slice(&number.to_be_bytes()[8 - width..]);
}

fn pick(random: &mut XorShift, choices: impl Iterator<Item = usize>) -> usize {
    let choices: Vec<usize> = choices.collect();
    choices[random.below(choices.len())]
}

//! Tagged fields: the payload of structured frames.
//!
//! A field is `tag: u16`, `reserved: u16` (zero), `length: u32`, then `length` bytes. Fields follow
//! one another without padding. A tag may repeat (arguments do); unknown tags are skipped, so that
//! a newer host can speak to an older guest.

use alloc::vec::Vec;

/// The length of a field's header in bytes.
pub const FIELD_HEADER_LEN: usize = 8;

/// Appends a field to `out`.
///
/// # Panics
/// When `value` is longer than 4 GiB.
pub fn put(out: &mut Vec<u8>, tag: u16, value: &[u8]) {
    let length = u32::try_from(value.len()).expect("a field is shorter than 4 GiB");
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(value);
}

/// Walks over the fields of a payload: `Some(Ok((tag, value)))`, or an error for a field that is
/// cut short, after which the walk ends.
pub fn iter(payload: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Truncated>> {
    let mut rest = payload;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((tag, value, tail)) = split(rest) {
            rest = tail;
            Some(Ok((tag, value)))
        } else {
            rest = &[];
            Some(Err(Truncated))
        }
    })
}

fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<FIELD_HEADER_LEN>()?;
    let tag = u16::from_le_bytes([header[0], header[1]]);
    let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    Some((tag, rest.get(..length)?, rest.get(length..)?))
}

/// A payload that ends in the middle of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

impl core::fmt::Display for Truncated {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the payload ends in the middle of a field")
    }
}

impl core::error::Error for Truncated {}

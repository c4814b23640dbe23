//! Bytes of one value: a CRC32C over key and body, then the body as CBOR. The key is covered so that a value under
//! the wrong key is seen too.

use minicbor::{Decode, Encode};

use super::StoreError;

const CHECKSUM_BYTES: usize = 4;

/// Encodes a value for its key.
pub(super) fn encode<T: Encode<()>>(key: &[u8], value: &T) -> Vec<u8> {
    let mut bytes = vec![0; CHECKSUM_BYTES];
    match minicbor::encode(value, &mut bytes) {
        Ok(()) => {}
        // Writing to a `Vec` has no error of its own and no record has a failing encoder.
        Err(error) => unreachable!("encoding to memory failed: {error}"),
    }
    let checksum = checksum(key, &bytes[CHECKSUM_BYTES..]);
    bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum);
    bytes
}

/// Decodes a value that was encoded for this key.
pub(super) fn decode<T: for<'b> Decode<'b, ()>>(key: &[u8], bytes: &[u8]) -> Result<T, StoreError> {
    let body = check(key, bytes)?;
    let mut decoder = minicbor::Decoder::new(body);
    let value = decoder.decode().map_err(|why| damaged(key, &why.to_string()))?;
    if decoder.position() == body.len() { Ok(value) } else { Err(damaged(key, "there is more than one value")) }
}

fn check<'a>(key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let (expected, body) = bytes.split_first_chunk().ok_or_else(|| damaged(key, "it is cut off"))?;
    if checksum(key, body) == *expected { Ok(body) } else { Err(damaged(key, "its checksum does not match")) }
}

fn checksum(key: &[u8], body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(key), body).to_le_bytes()
}

fn damaged(key: &[u8], what: &str) -> StoreError {
    StoreError::Damaged(format!("{}: {what}", key.escape_ascii()))
}

/// What one record adds to the sum over all records.
pub(super) fn weight(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_value_is_seen() {
        let bytes = encode(b"key", &"some value".to_owned());
        assert_eq!(decode(b"key", &bytes), Ok("some value".to_owned()));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(decode::<String>(b"key", &flipped).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_value_under_another_key_is_seen() {
        let bytes = encode(b"key", &1_u8);
        assert!(decode::<u8>(b"kez", &bytes).is_err());
        assert!(decode::<u8>(b"ke", &bytes).is_err());
        assert!(decode::<u8>(b"key", &bytes[..3]).is_err());
    }
}

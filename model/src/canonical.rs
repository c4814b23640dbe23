//! The one encoding that digests are made of: deterministic CBOR behind a schema byte.
//!
//! A value's bytes are `[schema byte][CBOR]`; its digest is BLAKE3 in key-derivation mode with the type's domain as
//! context, so that equal bytes of two types never share a digest. The CBOR is deterministic because every encoded
//! type is an array of fields in a fixed order, every collection is a sorted `Vec`, and integers take their shortest
//! form. The same bytes go to the ledger, to the store and to the edge: what was hashed is what is kept.
//!
//! A new schema gets a new byte. A reader refuses a byte it does not know (it never guesses), so an old program
//! meets new data with an error that names both numbers.

use minicbor::{Decode, Encode};

/// A type with one deterministic encoding.
pub trait Canonical: Encode<()> + for<'b> Decode<'b, ()> {
    /// Separates this type's digests from every other type's.
    const DOMAIN: &'static str;
    /// The schema that this program writes.
    const SCHEMA: u8;

    /// Encodes the value: schema byte, then CBOR.
    fn to_canonical(&self) -> Vec<u8> {
        let mut bytes = vec![Self::SCHEMA];
        match minicbor::encode(self, &mut bytes) {
            Ok(()) => bytes,
            // Writing to a `Vec` has no error of its own and no type here has a failing encoder.
            Err(error) => unreachable!("encoding to memory failed: {error}"),
        }
    }

    /// Decodes what [`Canonical::to_canonical`] wrote and checks that it is the one encoding of the value.
    ///
    /// # Errors
    /// When the schema byte is unknown, the CBOR is malformed, or the bytes are not the deterministic form.
    fn from_canonical(bytes: &[u8]) -> Result<Self, CanonicalError> {
        let (&schema, body) = bytes.split_first().ok_or(CanonicalError::Empty)?;
        if schema != Self::SCHEMA {
            return Err(CanonicalError::UnknownSchema { found: schema, known: Self::SCHEMA });
        }
        let value: Self = minicbor::decode(body).map_err(|e| CanonicalError::Malformed(e.to_string()))?;
        if value.to_canonical() != bytes {
            return Err(CanonicalError::NotDeterministic);
        }
        Ok(value)
    }

    /// BLAKE3 of the canonical bytes under the type's domain.
    fn digest(&self) -> [u8; 32] {
        domain_digest(Self::DOMAIN, &self.to_canonical())
    }
}

/// BLAKE3 of `bytes` with `domain` as key-derivation context.
#[must_use]
pub fn domain_digest(domain: &str, bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

/// Why bytes are not a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// There is no schema byte.
    #[error("the record is empty")]
    Empty,
    /// The bytes come from a program with another schema.
    #[error("the record has schema {found}, this program reads schema {known}")]
    UnknownSchema {
        /// The byte that was found.
        found: u8,
        /// The byte that this program writes.
        known: u8,
    },
    /// Not the CBOR of this type.
    #[error("the record is malformed: {0}")]
    Malformed(String),
    /// Decodable, but not byte for byte what this value encodes to.
    #[error("the record is not in its deterministic form")]
    NotDeterministic,
}

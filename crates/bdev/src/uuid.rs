//! UUIDs (RFC 9562): a bdev has one, made at random unless it was given.

use std::fmt;
use std::str::FromStr;

use crate::BdevError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// A version 4 UUID from the kernel's random numbers.
    pub fn random() -> Result<Self, BdevError> {
        let mut bytes = [0u8; 16];
        let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| BdevError::io("random numbers for a UUID", &errno.into()))?;
        if count != bytes.len() {
            return Err(BdevError::new(libc::EIO, "the kernel gave too few random numbers for a UUID"));
        }
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                formatter.write_str("-")?;
            }
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Uuid {
    type Err = BdevError;

    /// The canonical form, in either case.
    fn from_str(text: &str) -> Result<Self, BdevError> {
        let wrong =
            || BdevError::new(libc::EINVAL, format!("{text:?} is no UUID: 8-4-4-4-12 hexadecimal digits"));
        let parts: Vec<&str> = text.split('-').collect();
        if parts.iter().map(|part| part.len()).ne([8, 4, 4, 4, 12]) {
            return Err(wrong());
        }
        let digits: String = parts.concat();
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let value = u128::from_str_radix(&digits, 16).map_err(|_| wrong())?;
        Ok(Self(value.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let text = "2b6601ba-eada-44fb-9a83-a20eb9eb9e90";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
        assert_eq!(text.to_uppercase().parse::<Uuid>().unwrap().to_string(), text);
        for wrong in
            ["", "2b6601ba", "2b6601baeada44fb9a83a20eb9eb9e90", "+b6601ba-eada-44fb-9a83-a20eb9eb9e90"]
        {
            assert!(wrong.parse::<Uuid>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn random_ones_are_version_4_and_differ() {
        let (one, other) = (Uuid::random().unwrap(), Uuid::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.bytes()[6] >> 4, 4);
        assert_eq!(one.bytes()[8] >> 6, 2);
    }
}

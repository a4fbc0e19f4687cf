//! As much of CBOR (RFC 8949) as the AWS protocol `rpc-v2-cbor` needs to say in a request.

use serde_json::{Map, Value};

/// Deepest nesting; a limit so that no request exhausts the stack.
const DEPTH_MAX: usize = 32;

/// Decodes one item that takes up all of `bytes`; binary strings become arrays of numbers, tags are dropped.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = Reader { bytes };
    let value = reader.item(0)?;
    if reader.bytes.is_empty() { Ok(value) } else { Err("bytes after the end of the CBOR item".to_owned()) }
}

struct Reader<'bytes> {
    bytes: &'bytes [u8],
}

/// The length of a string or container: known, or until a break.
enum Length {
    Known(u64),
    UntilBreak,
}

impl Reader<'_> {
    fn item(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err("CBOR nested too deeply".to_owned());
        }
        let first = self.byte()?;
        let (major, info) = (first >> 5, first & 0x1f);
        match major {
            0 => Ok(self.argument(info)?.into()),
            1 => {
                let value = i64::try_from(self.argument(info)?).map_err(|_| "integer out of range")?;
                Ok((-1 - value).into())
            }
            2 => Ok(self.string(info, 2)?.into()),
            3 => self.text(info).map(Value::from),
            4 => {
                let length = self.length(info)?;
                let mut elements = Vec::new();
                while self.more(&length, elements.len())? {
                    elements.push(self.item(depth + 1)?);
                }
                Ok(elements.into())
            }
            5 => {
                let length = self.length(info)?;
                let mut members = Map::new();
                let mut count = 0;
                while self.more(&length, count)? {
                    let Value::String(name) = self.item(depth + 1)? else {
                        return Err("a CBOR map has a key that is not text".to_owned());
                    };
                    members.insert(name, self.item(depth + 1)?);
                    count += 1;
                }
                Ok(members.into())
            }
            6 => {
                self.argument(info)?;
                self.item(depth + 1)
            }
            _ => self.simple(info),
        }
    }

    fn simple(&mut self, info: u8) -> Result<Value, String> {
        match info {
            20 => Ok(false.into()),
            21 => Ok(true.into()),
            22 | 23 => Ok(Value::Null),
            25 => Ok(half(u16::from_be_bytes(self.array()?)).into()),
            26 => Ok(f64::from(f32::from_be_bytes(self.array()?)).into()),
            27 => Ok(f64::from_be_bytes(self.array()?).into()),
            _ => Err(format!("CBOR simple value {info}")),
        }
    }

    fn text(&mut self, info: u8) -> Result<String, String> {
        String::from_utf8(self.string(info, 3)?).map_err(|_| "CBOR text is not UTF-8".to_owned())
    }

    fn string(&mut self, info: u8, major: u8) -> Result<Vec<u8>, String> {
        match self.length(info)? {
            Length::Known(length) => self.take(length).map(<[u8]>::to_vec),
            Length::UntilBreak => {
                let mut whole = Vec::new();
                loop {
                    let first = self.byte()?;
                    if first == 0xff {
                        return Ok(whole);
                    }
                    if first >> 5 != major {
                        return Err("a CBOR string has a part of another type".to_owned());
                    }
                    let length = self.argument(first & 0x1f)?;
                    whole.extend_from_slice(self.take(length)?);
                }
            }
        }
    }

    fn length(&mut self, info: u8) -> Result<Length, String> {
        if info == 31 {
            return Ok(Length::UntilBreak);
        }
        self.argument(info).map(Length::Known)
    }

    /// Whether a container goes on after `count` entries.
    fn more(&mut self, length: &Length, count: usize) -> Result<bool, String> {
        match length {
            Length::Known(length) => Ok((count as u64) < *length),
            Length::UntilBreak => match self.bytes.split_first() {
                Some((0xff, rest)) => {
                    self.bytes = rest;
                    Ok(false)
                }
                Some(_) => Ok(true),
                None => Err(END.to_owned()),
            },
        }
    }

    fn argument(&mut self, info: u8) -> Result<u64, String> {
        match info {
            0..=23 => Ok(info.into()),
            24 => Ok(self.byte()?.into()),
            25 => Ok(u16::from_be_bytes(self.array()?).into()),
            26 => Ok(u32::from_be_bytes(self.array()?).into()),
            27 => Ok(u64::from_be_bytes(self.array()?)),
            _ => Err(format!("CBOR additional information {info}")),
        }
    }

    fn byte(&mut self) -> Result<u8, String> {
        let (first, rest) = self.bytes.split_first().ok_or(END)?;
        self.bytes = rest;
        Ok(*first)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (array, rest) = self.bytes.split_first_chunk().ok_or(END)?;
        self.bytes = rest;
        Ok(*array)
    }

    fn take(&mut self, length: u64) -> Result<&[u8], String> {
        let length = usize::try_from(length).map_err(|_| END)?;
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(END)?;
        self.bytes = rest;
        Ok(taken)
    }
}

const END: &str = "CBOR ends too early";

fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f64::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Examples of RFC 8949, Appendix A.
    #[test]
    fn the_examples_of_the_standard_are_decoded() {
        for (hex, expected) in [
            ("00", json!(0)),
            ("1818", json!(24)),
            ("1b000000e8d4a51000", json!(1_000_000_000_000_u64)),
            ("3863", json!(-100)),
            ("f93c00", json!(1.0)),
            ("f90001", json!(5.960_464_477_539_063e-8)),
            ("fa47c35000", json!(100_000.0)),
            ("fb3ff199999999999a", json!(1.1)),
            ("f4", json!(false)),
            ("f6", json!(null)),
            ("c11a514b67b0", json!(1_363_896_240)),
            ("62c3bc", json!("ü")),
            ("83010203", json!([1, 2, 3])),
            ("9f018202039f0405ffff", json!([1, [2, 3], [4, 5]])),
            ("a26161016162820203", json!({"a": 1, "b": [2, 3]})),
            ("bf61610161629f0203ffff", json!({"a": 1, "b": [2, 3]})),
            ("7f657374726561646d696e67ff", json!("streaming")),
        ] {
            let bytes = bytes(hex);
            assert_eq!(decode(&bytes), Ok(expected), "{hex}");
        }
    }

    #[test]
    fn broken_input_is_refused() {
        for hex in ["", "18", "62c3", "830102", "9f01", "a10102", "0000", "ff", "1c", "62ffff"] {
            assert!(decode(&bytes(hex)).is_err(), "{hex}");
        }
        assert!(decode(&[0x81; 1000]).is_err());
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|start| u8::from_str_radix(&hex[start..start + 2], 16).unwrap())
            .collect()
    }
}

//! The AWS protocol `rpc-v2-cbor`: a request as the JSON that says the same, and an error as a reply.

use minicbor::data::Type;
use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};
use serde_json::{Map, Value};

/// Deepest nesting; a limit so that no request exhausts the stack.
const DEPTH_MAX: usize = 32;

/// Decodes one item that takes up all of `bytes`. Tags are dropped; binary strings, which no request here has, are refused.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let mut decoder = Decoder::new(bytes);
    let value = item(&mut decoder, 0).map_err(|error| error.to_string())?;
    let whole = decoder.position() == bytes.len();
    whole.then_some(value).ok_or_else(|| "bytes after the end of the CBOR item".to_owned())
}

/// An error in the words of the protocol: a map of its code and its message.
pub(super) fn error(code: &str, message: &str) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    // Into memory it always succeeds.
    let _ = encoder.map(2).and_then(|encoder| encoder.str("__type")?.str(code)?.str("message")?.str(message));
    encoder.into_writer()
}

fn item(decoder: &mut Decoder<'_>, depth: usize) -> Result<Value, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::message("nested too deeply"));
    }
    Ok(match decoder.datatype()? {
        Type::Bool => decoder.bool()?.into(),
        Type::Null | Type::Undefined => {
            decoder.skip()?;
            Value::Null
        }
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => decoder.u64()?.into(),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => decoder.i64()?.into(),
        Type::F16 | Type::F32 | Type::F64 => decoder.f64()?.into(),
        Type::String | Type::StringIndef => decoder.str_iter()?.collect::<Result<String, _>>()?.into(),
        Type::Array | Type::ArrayIndef => {
            let length = decoder.array()?;
            let mut elements = Vec::new();
            while more(decoder, length, elements.len())? {
                elements.push(item(decoder, depth + 1)?);
            }
            elements.into()
        }
        Type::Map | Type::MapIndef => {
            let length = decoder.map()?;
            let (mut members, mut count) = (Map::new(), 0);
            while more(decoder, length, count)? {
                let name = decoder.str_iter()?.collect::<Result<String, _>>()?;
                members.insert(name, item(decoder, depth + 1)?);
                count += 1;
            }
            members.into()
        }
        Type::Tag => {
            decoder.tag()?;
            item(decoder, depth + 1)?
        }
        other => return Err(Error::type_mismatch(other)),
    })
}

/// Whether a container goes on after `count` entries; one without a length ends with a break.
fn more(decoder: &mut Decoder<'_>, length: Option<u64>, count: usize) -> Result<bool, Error> {
    match length {
        Some(length) => Ok((count as u64) < length),
        None if decoder.datatype()? == Type::Break => decoder.skip().map(|()| false),
        None => Ok(true),
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
        for hex in ["", "18", "62c3", "830102", "9f01", "a10102", "0000", "ff", "1c", "62ffff", "4101"] {
            assert!(decode(&bytes(hex)).is_err(), "{hex}");
        }
        assert!(decode(&[0x81; 1000]).is_err());
    }

    #[test]
    fn an_error_is_a_map_of_its_code_and_its_message() {
        let message = "m".repeat(300);
        assert_eq!(
            decode(&error("InvalidAction", &message)),
            Ok(json!({"__type": "InvalidAction", "message": message}))
        );
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
        hex.as_bytes().chunks(2).map(|two| 16 * digit(two[0]) + digit(two[1])).collect()
    }
}

//! Parameters of a call, decoded as strictly as SPDK does: an unknown key, a wrong type, a missing key, `null` where a
//! value belongs, a key given twice and positional parameters are all refused, before anything was changed.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::message::{RpcError, code};

/// How a method answers parameters that it cannot decode: SPDK's subsystems differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Most methods: -32603 "spdk_json_decode_object failed".
    Internal,
    /// Some (error bdevs): -32602 with that text.
    Invalid,
    /// vhost: -32602 "Invalid argument", that is EINVAL's text.
    Vhost,
    /// framework and rpc methods: -32602 "Invalid parameters".
    Plain,
}

impl Refusal {
    pub fn error(self, why: impl Into<String>) -> RpcError {
        const FAILED: &str = "spdk_json_decode_object failed";
        let error = match self {
            Refusal::Internal => RpcError::new(code::INTERNAL_ERROR, FAILED),
            Refusal::Invalid => RpcError::new(code::INVALID_PARAMS, FAILED),
            Refusal::Vhost => RpcError::vhost(libc::EINVAL),
            Refusal::Plain => RpcError::new(code::INVALID_PARAMS, "Invalid parameters"),
        };
        error.with(why)
    }
}

/// Types of [`Parameters::members`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Text,
    Flag,
    /// Not negative, with so many bits.
    Unsigned(u32),
    Signed32,
    Object,
    List,
}

impl Type {
    fn takes(self, value: &Value) -> bool {
        match self {
            Type::Text => value.is_string(),
            Type::Flag => value.is_boolean(),
            Type::Unsigned(bits) => value.as_u64().is_some_and(|number| bits == 64 || number >> bits == 0),
            Type::Signed32 => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            Type::Object => value.is_object(),
            Type::List => value.is_array(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Type::Text => "a string",
            Type::Flag => "true or false",
            Type::Unsigned(64) => "a number from 0 on",
            Type::Unsigned(32) => "a number from 0 to 4294967295",
            Type::Unsigned(16) => "a number from 0 to 65535",
            Type::Unsigned(_) => "a number from 0 to 255",
            Type::Signed32 => "a number of 32 bits",
            Type::Object => "an object",
            Type::List => "a list",
        }
    }
}

/// The text of the parameters, not yet decoded.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Option<Box<RawValue>>);

impl Parameters {
    pub fn new(text: Option<Box<RawValue>>) -> Parameters {
        Parameters(text)
    }

    /// The same parameters with keys under their present names; `key[]` takes the value as the only one of a list. A key that is there under both is left alone: decoding
    /// refuses it.
    pub fn renamed(self, keys: &[(&str, &str)]) -> Result<Parameters, String> {
        let Some(text) = self.0.as_ref().filter(|text| !keys.is_empty() && text.get().starts_with('{'))
        else {
            return Ok(self);
        };
        let pairs: Pairs = serde_json::from_str(text.get()).map_err(|error| error.to_string())?;
        let member = |(key, value): (String, Box<RawValue>)| {
            let new = keys.iter().find(|(old, _)| *old == key).map(|(_, new)| *new);
            let (key, value) = match new.map(|new| (new, new.strip_suffix("[]"))) {
                None => (key, value.get().to_owned()),
                Some((_, Some(list))) => (list.to_owned(), format!("[{}]", value.get())),
                Some((new, None)) => (new.to_owned(), value.get().to_owned()),
            };
            format!("{}:{value}", serde_json::Value::from(key))
        };
        let members: Vec<String> = pairs.0.into_iter().map(member).collect();
        let text =
            RawValue::from_string(format!("{{{}}}", members.join(","))).map_err(|error| error.to_string())?;
        Ok(Parameters(Some(text)))
    }

    /// Decodes the parameters of a method that needs them.
    pub fn decode<T: DeserializeOwned>(&self, refusal: Refusal) -> Result<T, RpcError> {
        match &self.0 {
            None => Err(refusal.error("this method needs `params`")),
            Some(text) if !text.get().starts_with('{') => {
                Err(refusal.error("`params` is an object with named keys"))
            }
            Some(text) => serde_json::from_str(text.get()).map_err(|error| refusal.error(error.to_string())),
        }
    }

    /// The same for a method that does without.
    pub fn decode_or_default<T: DeserializeOwned + Default>(&self, refusal: Refusal) -> Result<T, RpcError> {
        if self.0.is_none() { Ok(T::default()) } else { self.decode(refusal) }
    }

    /// Decodes parameters that are many and mostly of no meaning here: each key has to be in the table, once and with a
    /// value of its type.
    pub fn members(
        &self,
        table: &[(&str, Type)],
        refusal: Refusal,
    ) -> Result<BTreeMap<String, Value>, RpcError> {
        let pairs: Pairs = self.decode(refusal)?;
        let mut members = BTreeMap::new();
        for (key, value) in pairs.0 {
            let Some((_, kind)) = table.iter().find(|(name, _)| *name == key) else {
                return Err(refusal.error(format!("there is no parameter `{key}`")));
            };
            let value: Value =
                serde_json::from_str(value.get()).map_err(|error| refusal.error(error.to_string()))?;
            if !kind.takes(&value) {
                return Err(refusal.error(format!("`{key}` is {}, not {value}", kind.name())));
            }
            if members.insert(key.clone(), value).is_some() {
                return Err(refusal.error(format!("`{key}` is given twice")));
            }
        }
        Ok(members)
    }

    /// SPDK refuses any `params`, even empty ones, where a method takes none.
    pub fn none(&self, message: &str) -> Result<(), RpcError> {
        if self.0.is_none() { Ok(()) } else { Err(RpcError::new(code::INVALID_PARAMS, message)) }
    }
}

/// The members of an object in their order, twins included, which a map would lose.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// For optional keys: the key may be left out, but `null` is no value.
/// Use with `#[serde(default, deserialize_with = "given")]`.
pub fn given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Create {
        name: String,
        blocks: u32,
        #[serde(default, deserialize_with = "given")]
        note: Option<String>,
    }

    fn decode(text: &str) -> Result<Create, RpcError> {
        let raw = (!text.is_empty()).then(|| RawValue::from_string(text.into()).unwrap());
        Parameters::new(raw).decode(Refusal::Internal)
    }

    #[test]
    fn only_what_is_declared_is_taken() {
        assert_eq!(
            decode(r#"{"name":"a","blocks":3}"#).unwrap(),
            Create { name: "a".into(), blocks: 3, note: None }
        );
        assert_eq!(decode(r#"{"note":"n","name":"a","blocks":3}"#).unwrap().note.as_deref(), Some("n"));
        for bad in [
            "",
            "[]",
            r#"["a",3]"#,
            "{}",
            r#"{"name":"a"}"#,
            r#"{"name":"a","blocks":"3"}"#,
            r#"{"name":"a","blocks":-1}"#,
            r#"{"name":"a","blocks":4294967296}"#,
            r#"{"name":null,"blocks":3}"#,
            r#"{"name":"a","blocks":3,"note":null}"#,
            r#"{"name":"a","blocks":3,"bogus":1}"#,
            r#"{"name":"a","name":"a","blocks":3}"#,
        ] {
            let error = decode(bad).unwrap_err();
            assert_eq!(
                (error.code, error.message.as_str()),
                (-32603, "spdk_json_decode_object failed"),
                "{bad}"
            );
            assert!(error.detail.is_some());
        }
    }

    #[test]
    fn old_keys_get_their_present_names_and_twins_stay() {
        let renamed = |text: &str| {
            let parameters = Parameters::new(Some(RawValue::from_string(text.into()).unwrap()));
            parameters.renamed(&[("fname", "name")]).unwrap().decode::<Create>(Refusal::Internal)
        };
        assert_eq!(renamed(r#"{"fname":"a\"b","blocks":3}"#).unwrap().name, "a\"b");
        assert!(renamed(r#"{"fname":"a","name":"a","blocks":3}"#).is_err());
        assert!(renamed(r#"["a",3]"#).is_err());
    }

    #[test]
    fn tables_are_as_strict_as_types() {
        let table = &[
            ("name", Type::Text),
            ("n8", Type::Unsigned(8)),
            ("n64", Type::Unsigned(64)),
            ("on", Type::Flag),
        ];
        let members = |text: &str| {
            Parameters::new(Some(RawValue::from_string(text.into()).unwrap()))
                .members(table, Refusal::Internal)
        };
        let taken = members(r#"{"name":"a","n8":255,"n64":18446744073709551615,"on":true}"#).unwrap();
        assert_eq!(taken.len(), 4);
        for bad in [
            r#"{"x":1}"#,
            r#"{"name":1}"#,
            r#"{"n8":256}"#,
            r#"{"n64":-1}"#,
            r#"{"on":null}"#,
            r#"{"on":true,"on":true}"#,
            "[]",
        ] {
            assert_eq!(members(bad).unwrap_err().code, -32603, "{bad}");
        }
    }

    #[test]
    fn each_subsystem_refuses_in_its_own_way() {
        assert_eq!(Refusal::Vhost.error("x").message, "Invalid argument");
        assert_eq!(Refusal::Plain.error("x").code, -32602);
        assert_eq!(Parameters::default().none("m requires no parameters"), Ok(()));
        let given = Parameters::new(Some(RawValue::from_string("{}".into()).unwrap()));
        assert_eq!(given.none("m requires no parameters").unwrap_err().code, -32602);
    }
}

//! Values that people write with a unit, and what they mean.

use serde::Deserialize;

/// Longest start that can be asked for, in seconds.
const MAX_START_SECONDS: u64 = 3600;
/// Smallest memory limit in MiB: an engine refuses less than 6.
const MIN_MEMORY_MIB: u64 = 16;
/// Most words of a command.
const MAX_COMMAND_WORDS: usize = 256;

/// A memory limit in MiB, written `"512MiB"`, `"1GB"` or as a bare number of MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct MemoryMib(pub u32);

/// A CPU limit in thousandths of a core, written `0.5`, `2` or `"500m"`; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct CpuMillis(pub u32);

/// How long a start may take, in milliseconds, written `"90s"`, `"2m"` or as a bare number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct StartTimeout(pub u32);

/// A command as an argument array, written as an array or as words with spaces between them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Words")]
pub struct Command(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Integer(u64),
    Float(f64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    Line(String),
    Array(Vec<String>),
}

impl Written {
    /// The number and the unit that follows it.
    fn split(&self) -> Option<(f64, String)> {
        match self {
            Self::Integer(number) => u32::try_from(*number).ok().map(|n| (f64::from(n), String::new())),
            Self::Float(number) => Some((*number, String::new())),
            Self::Text(text) => {
                let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
                let (number, unit) = text.split_at(at);
                Some((number.parse().ok()?, unit.trim().to_ascii_lowercase()))
            }
        }
    }

    /// The value in the smallest unit, when it is a number from `least` to `most`.
    fn scaled(&self, factor: impl Fn(&str) -> Option<f64>, least: u64, most: u64) -> Option<u32> {
        let (number, unit) = self.split()?;
        let value = (number * factor(&unit)?).round();
        let range = least as f64..=most as f64;
        // The range lies within 32 bits, and a NaN is in no range.
        range.contains(&value).then_some(value as u32)
    }
}

impl TryFrom<Written> for MemoryMib {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let factor = |unit: &str| match unit {
            "" | "m" | "mb" | "mib" => Some(1.0),
            "g" | "gb" | "gib" => Some(1024.0),
            _ => None,
        };
        let mib = written.scaled(factor, MIN_MEMORY_MIB, u64::from(u32::MAX >> 8));
        mib.map(Self).ok_or("memory must be at least 16 MiB, such as \"512MiB\" or \"1GiB\"")
    }
}

impl TryFrom<Written> for CpuMillis {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let factor = |unit: &str| match unit {
            "" => Some(1000.0),
            "m" => Some(1.0),
            _ => None,
        };
        let millis = written.scaled(factor, 0, 1_000_000);
        millis.map(Self).ok_or("cpu must be a number of cores, such as 0.5")
    }
}

impl TryFrom<Written> for StartTimeout {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let factor = |unit: &str| match unit {
            "ms" => Some(1.0),
            "" | "s" => Some(1000.0),
            "m" | "min" => Some(60_000.0),
            _ => None,
        };
        let ms = written.scaled(factor, 1000, MAX_START_SECONDS * 1000);
        ms.map(Self).ok_or("start_timeout must be between 1 second and 1 hour, such as \"90s\"")
    }
}

impl TryFrom<Words> for Command {
    type Error = &'static str;

    fn try_from(words: Words) -> Result<Self, Self::Error> {
        let words = match words {
            Words::Array(words) => words,
            Words::Line(line) if line.contains(|c: char| "\"'`$|&;<>(){}*?\\".contains(c) || c.is_control()) => {
                return Err(
                    "a command as text is split at spaces and no shell reads it: write an array, such as [\"node\", \"server.js\"]",
                );
            }
            Words::Line(line) => line.split_whitespace().map(str::to_owned).collect(),
        };
        let fits = !words.is_empty() && words.len() <= MAX_COMMAND_WORDS && !words[0].is_empty();
        if fits && !words.iter().any(|w| w.contains('\0')) {
            Ok(Self(words))
        } else {
            Err("a command needs 1 to 256 words")
        }
    }
}
